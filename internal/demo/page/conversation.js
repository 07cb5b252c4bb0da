// A room, or a private talk with one socket: its messages in the order of their
// offsets, each once.

import { element } from "./element.js";
import { brief, compare } from "./offset.js";

const NOTICES = {
  joined: (body) => `${body.nick} joined`,
  left: (body) => `${body.nick} left`,
  renamed: (body) => `${body.was} is now ${body.nick}`,
};

// The list is the state: what is shown is what is known.
export class Conversation {
  list = element("ol", { "data-testid": "messages", role: "log", "aria-label": "Messages", hidden: true });
  unread = 0;
  joined = false;
  more = false; // there are older messages to load
  waiting = new Map(); // own messages that have no offset yet, by id: {body, sent}

  #byID = new Map();
  #byOffset = new Set();
  #isOwn;

  // kind is room or direct; key is the room's name or the peer's socket id.
  // isOwn tells whether a message id was made by this tab.
  constructor(kind, key, isOwn) {
    this.kind = kind;
    this.key = key;
    this.#isOwn = isOwn;
  }

  get oldest() { return this.list.querySelector("[data-offset]")?.dataset.offset; }
  get silent() { return !this.list.querySelector("[data-from]"); }

  // Shows an event at its place and reports whether it is new here. One that is
  // known already is not shown again; an own message that waited takes its place.
  add({ event, body, offset, missed = false }) {
    const chat = event === "chat" || event === "direct";
    if (!chat && !NOTICES[event] || this.#byOffset.has(offset)) return false;
    const known = chat && this.#byID.get(body.id);
    if (known && !this.waiting.has(body.id)) return false;
    const item = known || (chat ? this.#message(body) : this.#notice(event, body));
    this.waiting.delete(body.id);
    item.removeAttribute("data-waiting");
    item.toggleAttribute("data-missed", missed);
    if (offset) {
      this.#byOffset.add(offset);
      item.dataset.offset = offset;
      item.querySelector(".offset").textContent = brief(offset);
      item.querySelector(".offset").title = `place in the order: ${offset}`;
    }
    this.#place(item, offset);
    return !known;
  }

  // Shows an own message that is not stored yet, below all others.
  hold(body) {
    this.waiting.set(body.id, { body, sent: false });
    const item = this.#message(body);
    item.dataset.waiting = "";
    this.note(body.id, "sending");
    this.#place(item, "");
  }

  // Says below an own message why it still waits.
  note(id, text) {
    this.#byID.get(id).querySelector(".offset").textContent = text;
  }

  // An own message that was refused stays, marked, and waits no longer.
  refuse(id, text) {
    this.waiting.delete(id);
    this.#byID.get(id).dataset.refused = "";
    this.note(id, text);
  }

  forgetMissed() {
    for (const item of this.list.querySelectorAll("[data-missed]")) item.removeAttribute("data-missed");
  }

  // Empties the list but for the own messages that wait.
  reset() {
    const waiting = [...this.waiting.values()];
    this.list.replaceChildren();
    this.#byID.clear();
    this.#byOffset.clear();
    for (const { body, sent } of waiting) {
      this.hold(body);
      this.waiting.get(body.id).sent = sent;
    }
  }

  #place(item, offset) {
    item.remove();
    const below = (other) => !("waiting" in item.dataset) && ("waiting" in other.dataset ||
      offset && other.dataset.offset && compare(other.dataset.offset, offset) > 0);
    let next = null;
    for (let last = this.list.lastElementChild; last && below(last); last = last.previousElementSibling) next = last;
    this.list.insertBefore(item, next);
    for (const each of [item, item.nextElementSibling]) {
      const previous = each?.previousElementSibling?.dataset;
      each?.toggleAttribute("data-follows", Boolean(previous?.from) &&
        previous.from === each.dataset.from && previous.missed === each.dataset.missed);
    }
  }

  #message({ id = "", from, text, at }) {
    const own = this.#isOwn(id);
    const when = new Date(at || Date.now());
    const item = element("li",
      { "data-testid": "message", "data-id": id, "data-own": own, "data-from": `${own ? "own" : ""} ${from}` },
      element("span", { class: "avatar", "aria-hidden": "true" }, [...from][0] ?? "?"),
      element("b", { class: "from", dir: "auto" }, from, own ? element("span", { class: "you" }, " (you)") : ""),
      element("time", { datetime: when.toISOString() }, when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })),
      element("p", { class: "text", dir: "auto", "data-testid": "message-text" }, text),
      element("code", { class: "offset" }));
    item.style.setProperty("--hue", hue(from));
    if (id) this.#byID.set(id, item);
    return item;
  }

  #notice(event, body) {
    return element("li", { class: "notice", "data-testid": "notice" },
      element("span", { dir: "auto" }, NOTICES[event](body)), element("code", { class: "offset" }));
  }
}

// A colour for a name, the same in every tab.
function hue(name) {
  let sum = 7;
  for (const c of name) sum = (sum * 31 + c.codePointAt(0)) % 3600;
  return sum / 10;
}
