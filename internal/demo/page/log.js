// The side log: each event as it came or went, with its offset.

import { element } from "./element.js";
import { brief } from "./offset.js";

const KEPT = 300;

export class Log {
  #list;

  constructor(list) { this.#list = list; }

  add({ event, args, offset, missed = false, sent = false }) {
    const following = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    this.#list.append(element("li",
      { "data-testid": "event", "data-event": event, "data-offset": offset, "data-missed": missed, "data-sent": sent },
      element("span", { class: "way", title: sent ? "sent" : "received" }, sent ? "\u2191" : "\u2193"),
      element("b", {}, event),
      element("code", { class: "offset", title: offset ? `place in the order: ${offset}` : "not stored" }, offset ? brief(offset) : ""),
      element("span", { class: "args" }, args.map((a) => JSON.stringify(a)).join(", ").slice(0, 300))));
    while (this.#list.children.length > KEPT) this.#list.firstChild.remove();
    if (following) this.#list.scrollTop = this.#list.scrollHeight;
  }
}
