// A form of filters whose state is the address, so that a view can be linked and the back button works.

import { el } from "./dom.js";

// fields: [{name, label, choices? | placeholder?}]
export function filters(view, fields, query) {
  const inputs = fields.map((field) => [field, control(field, query.get(field.name) ?? "")]);
  const form = el("form", { class: "filters" },
    inputs.map(([field, input]) => el("label", {}, el("span", {}, field.label), input)),
    el("button", {}, "Filter"),
    query.size > 0 && el("a", { href: `#/${view}` }, "Clear"));
  const go = (event) => {
    event?.preventDefault();
    const chosen = new URLSearchParams();
    for (const [field, input] of inputs) {
      if (input.value.trim()) chosen.set(field.name, input.value.trim());
    }
    location.hash = chosen.size ? `#/${view}?${chosen}` : `#/${view}`;
  };
  form.addEventListener("submit", go);
  form.addEventListener("change", (event) => event.target.tagName === "SELECT" && go());
  return form;
}

function control(field, value) {
  if (!field.choices) {
    return el("input", { name: field.name, value, placeholder: field.placeholder, size: field.size ?? 18, maxlength: 2048,
      autocomplete: "off", spellcheck: "false" });
  }
  const options = ["", ...field.choices].map((choice) =>
    el("option", { value: choice, selected: choice === value }, choice || "any"));
  return el("select", { name: field.name }, options);
}

export function chosenOf(query, names) {
  return Object.fromEntries(names.map((name) => [name, query.get(name) ?? ""]));
}
