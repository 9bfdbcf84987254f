// A part of the page that shows what a call answers: loading, empty, failed (with what was there before), or shown.

import { el, replace } from "./dom.js";
import { time } from "./format.js";

export class Region {
  // load(signal) asks; render(data) gives nodes; isEmpty(data) and `empty` say what to show when there is nothing.
  // `ages`: what is shown depends on the clock, so it is drawn again even when the answer is the same.
  constructor(root, { load, render, isEmpty = () => false, empty = "Nothing yet.", ages = false }) {
    this.load = load;
    this.render = render;
    this.isEmpty = isEmpty;
    this.empty = empty;
    this.ages = ages;
    this.notice = el("div", { role: "alert" });
    this.body = el("div", {}, el("p", { class: "state" }, "Loading…"));
    this.text = null;
    this.loadedAt = null;
    this.isWrong = false; // asked in a way that no second try can mend
    root.append(this.notice, this.body);
  }

  // Throws what failed, after saying it in the page.
  async refresh(signal) {
    try {
      const data = await this.load(signal);
      if (signal?.aborted) return;
      // Unchanged answers leave the page alone: a selection, a focus or a scrolled box is not disturbed.
      const text = JSON.stringify(data);
      if (text !== this.text || this.ages) this.show(data);
      this.text = text;
      this.loadedAt = Date.now() / 1000;
      if (this.notice.firstChild) replace(this.notice);
    } catch (error) {
      if (!signal?.aborted) this.fail(error);
      throw error;
    }
  }

  show(data) {
    const nodes = this.isEmpty(data) ? el("p", { class: "state" }, this.empty) : this.render(data);
    replace(this.body, nodes);
  }

  fail(error) {
    this.isWrong = error.status === 400;
    const old = this.loadedAt === null ? "" : ` Showing what was so at ${time(this.loadedAt)}.`;
    const title = el("strong", {}, error.title ?? "Failed");
    replace(this.notice, el("p", { class: "notice" }, title, ` ${error.message}${old}`));
    if (this.loadedAt === null) replace(this.body);
  }
}
