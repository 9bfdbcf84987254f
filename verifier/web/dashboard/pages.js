// A newest-first list that can grow downwards by pages and upwards by refreshing, without repeating an item.

import { get } from "./api.js";
import { el } from "./dom.js";

const PAGE = 50;
const SHOWN_MAX = 2000;

export class Pages {
  constructor(path, parameters, key) {
    this.path = path;
    this.parameters = parameters;
    this.key = key;
    this.items = [];
    this.cursor = null;
    this.grown = false;
    this.region = null;
    this.error = null;
  }

  // The newest page. Once more pages are open, new items go on top of them and revised ones take their place.
  async load(signal) {
    const page = await get(this.path, { ...this.parameters, limit: PAGE }, signal);
    if (!this.grown) {
      this.items = page.items;
      this.cursor = page.next_cursor;
    } else {
      const fresh = new Map(page.items.map((item) => [this.key(item), item]));
      const rest = this.items.filter((item) => !fresh.has(this.key(item)));
      this.items = [...page.items, ...rest].sort((a, b) => b.ts - a.ts).slice(0, SHOWN_MAX);
    }
    return this.state();
  }

  state() {
    return { items: this.items, more: this.cursor !== null && this.items.length < SHOWN_MAX, error: this.error };
  }

  async grow() {
    try {
      const page = await get(this.path, { ...this.parameters, limit: PAGE, cursor: this.cursor });
      const known = new Set(this.items.map(this.key));
      this.items = [...this.items, ...page.items.filter((item) => !known.has(this.key(item)))];
      this.cursor = page.next_cursor;
      this.grown = true;
      this.error = null;
    } catch (error) {
      this.error = error.message;
    }
    this.region.text = null;
    this.region.show(this.state());
  }

  footer(state) {
    const shown = state.items.length;
    if (state.error) return el("p", { class: "notice", role: "alert" }, state.error);
    if (state.more) {
      return el("p", { class: "state" }, `${shown} shown. `,
        el("button", { type: "button", onclick: () => this.grow(), "data-focus": "more" }, "Show older"));
    }
    const end = shown >= SHOWN_MAX ? "narrow the filters to see others." : "that is all.";
    return el("p", { class: "state" }, `${shown} shown, ${end}`);
  }
}
