// The page: rooms, messages and members on the node's built-in application.
// Whatever strangers send is shown as text, or not at all.

import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { element } from "./element.js";
import { Log } from "./log.js";
import { control, showOutcome, showState } from "./panel.js";
import { editNickname, hasLeft, isOwn, knows, meet, nameOf, newMessageID, nickname, showMembers } from "./people.js";
import { ask, onToken, token, wanted } from "./token.js";

const $ = (id) => document.getElementById(id);
const PAGE = 40; // messages in one page
const MEMBERS_MS = 15_000;

const log = new Log($("log"));
const conversations = new Map(); // by kind and key, in the order of their opening
let current;
let connection;

function start() {
  $("app").hidden = $("views").hidden = false;
  const path = new URL(".", $("client").src).pathname;
  connection = new Connection(path, token, { state: changed, event: received, published: (e) => log.add({ ...e, sent: true }), ready });
  control(connection);
  editNickname($("nickname"), renamed);
  bindForms();
  show(conversation("room", "lobby"));
  onToken(useToken);
  if (wanted && !token()) changed("closed", "a token is required", "token_missing");
  else connection.open();
  setInterval(() => document.hidden || loadMembers(), MEMBERS_MS);
}

// Conversations

function conversation(kind, key) {
  const name = `${kind} ${key}`;
  if (!conversations.has(name)) {
    const made = new Conversation(kind, key, isOwn);
    conversations.set(name, made);
    $("lists").append(made.list);
  }
  return conversations.get(name);
}

const title = (c) => (c.kind === "room" ? c.key : nameOf(c.key));
const rooms = () => [...conversations.values()].filter((c) => c.kind === "room");

function show(c) {
  if (current) current.list.hidden = true;
  current = c;
  c.list.hidden = false;
  c.unread = 0;
  document.body.dataset.view = "chat";
  render();
  toEnd();
  loadMembers();
  if (matchMedia("(hover: hover)").matches) $("message-input").focus(); // no keyboard popping up on phones
}

function render() {
  const place = (c) => element("li", {}, element("button",
    { "data-testid": c.kind, "data-room": c.kind === "room" && c.key, "data-id": c.kind === "direct" && c.key,
      "aria-current": c === current && "true", onclick: () => show(c) },
    element("span", { dir: "auto" }, title(c)),
    c.unread ? element("span", { class: "badge", "aria-label": `${c.unread} unread` }, String(c.unread)) : ""));
  const all = [...conversations.values()];
  const directs = all.filter((c) => c.kind === "direct");
  const unread = all.reduce((sum, c) => sum + c.unread, 0);
  $("rooms").replaceChildren(...rooms().map(place));
  $("directs").replaceChildren(...directs.map(place));
  $("directs-box").hidden = !directs.length;
  $("title").textContent = title(current);
  $("subtitle").textContent = current.kind === "room" ? "" : "private";
  $("leave").hidden = current.key === "lobby" && current.kind === "room";
  $("leave").textContent = current.kind === "room" ? "Leave" : "Close";
  $("members-box").hidden = current.kind !== "room";
  $("older").hidden = !current.more;
  $("empty").hidden = !current.silent;
  $("unread-all").hidden = !unread;
  $("unread-all").textContent = unread;
  for (const button of $("views").children) button.setAttribute("aria-current", button.dataset.show === document.body.dataset.view);
  window.document.title = unread ? `(${unread}) Rejoin` : "Rejoin";
}

const atEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;
const toEnd = () => { $("scroll").scrollTop = $("scroll").scrollHeight; };

// Shows what was missed: its beginning, if not all of it fits above the end.
function toMissed() {
  const first = current.list.querySelector("[data-missed]");
  if (!first) return;
  toEnd();
  if (first.getBoundingClientRect().top < $("scroll").getBoundingClientRect().top) first.scrollIntoView({ block: "start" });
}

// The connection

function changed(state, reason, code) {
  if (code) ask(`The server says: ${reason}.`);
  if (state !== "connected") for (const c of conversations.values()) c.forgetMissed();
  showState(connection, reason, code);
}

// Renews the token of the connection, or connects with it.
async function useToken(fresh) {
  if (connection.state !== "connected") return connection.open();
  const answer = await connection.request("token", fresh);
  return answer.ok ? "" : `${answer.message}.`;
}

// Connected, and all that was missed is shown. A new session is in no room.
async function ready(result) {
  if (result.outcome === "lost") {
    for (const c of rooms()) {
      c.joined = false;
      c.reset();
    }
  }
  showOutcome(result);
  toMissed();
  await Promise.all([...conversations.values()].map(async (c) => {
    if (c.kind === "room" && !c.joined) await join(c);
    await flush(c);
  }));
  loadMembers();
}

function received(e) {
  log.add(e);
  const body = e.args[0];
  if (!wellFormed(e.event, body)) return;
  if (body.nick) meet(body.sid, body.nick);
  if (e.event === "here") return loadMembers();
  if (e.event === "direct") meet(body.sid, body.from);
  const c = e.event === "direct" ? conversation("direct", body.sid) : conversations.get(`room ${body.room}`);
  if (!c) return; // left meanwhile
  const follow = atEnd();
  if (!c.add({ ...e, body })) return;
  if (e.event === "joined") connection.request("private", body.sid, "here", { nick: nickname, sid: connection.id });
  const talk = e.event === "chat" || e.event === "direct";
  if (talk && (c !== current || document.hidden)) c.unread++;
  if (e.event === "left") hasLeft(body.room, body.sid);
  if (!talk) loadMembers();
  render();
  if (c === current && follow) toEnd();
}

// Anyone may send anything under any name.
function wellFormed(event, body) {
  const has = (...fields) => fields.every((f) => typeof body?.[f] === "string");
  const message = () => has("id", "from", "text") && typeof body.at === "number" && Math.abs(body.at) < 8e15;
  switch (event) {
    case "chat": return has("room") && message();
    case "direct": return has("sid") && message();
    case "joined": case "left": return has("room", "sid", "nick");
    case "renamed": return has("room", "sid", "nick", "was");
    case "here": return has("sid", "nick");
    default: return false;
  }
}

// Rooms

// Joins with the latest messages: later ones come as events, without a gap and a repeat.
async function join(c) {
  let answer = await connection.request("join", c.key, { rewind: PAGE });
  if (answer.code === "forbidden") answer = await connection.request("join", c.key); // history may be
  if (!answer.ok) return complain(`Cannot join ${c.key}: ${answer.message}.`);
  c.joined = true;
  if (answer.history) showPage(c, answer.history[c.key]);
  else await load(c);
  await announce(c, "joined");
}

async function leave(c) {
  if (c.kind === "room") {
    await announce(c, "left");
    const answer = await connection.request("leave", c.key);
    if (!answer.ok) return complain(`Cannot leave ${c.key}: ${answer.message}.`);
  }
  c.list.remove();
  conversations.delete(`${c.kind} ${c.key}`);
  if (c === current) show(conversation("room", "lobby"));
}

async function announce(c, event, more = {}) {
  const body = { nick: nickname, ...more, sid: connection.id, room: c.key };
  const answer = await connection.request("to", c.key, event, body);
  if (answer.ok) c.add({ event, body, offset: answer.offset });
  render();
}

function renamed(was) {
  for (const c of rooms()) if (c.joined) announce(c, "renamed", { was });
  loadMembers();
}

// Loads a page of history: the newest, or the one before an offset.
async function load(c, before) {
  const oldest = before || !c.oldest;
  const answer = await connection.request("history", c.key, before ? { limit: PAGE, before } : { limit: PAGE });
  if (!answer.ok) return complain(`No history of ${c.key}: ${answer.message}.`);
  showPage(c, answer, before, oldest);
  return true;
}

function showPage(c, { events, more }, before, oldest = !c.oldest) {
  if (oldest) c.more = more;
  const height = $("scroll").scrollHeight;
  for (const { event, offset, args: [body] } of events) {
    if (!wellFormed(event, body) || body.room !== c.key) continue;
    if (body.nick && !knows(body.sid)) meet(body.sid, body.nick);
    c.add({ event, body, offset });
  }
  render();
  if (c === current && before) $("scroll").scrollTop += $("scroll").scrollHeight - height;
  else if (c === current) toEnd();
}

async function loadMembers() {
  const room = current;
  if (room.kind !== "room" || !room.joined) return;
  const answer = await connection.request("members", room.key);
  if (!answer.ok || room !== current) return;
  $("member-count").textContent = answer.members.length + (answer.partial ? " or more" : "");
  showMembers($("members"), room.key, answer, connection.id, (id) => show(conversation("direct", id)));
}

// Messages

// Sends an own message. It is shown immediately, and takes its place in the order
// when the answer tells its offset.
function send(c, text) {
  const body = { from: nickname, text, at: Date.now(), id: newMessageID() };
  c.hold(body);
  deliver(c, body);
  render();
  if (c === current) toEnd();
}

async function deliver(c, body) {
  const waiting = c.waiting.get(body.id);
  const answer = c.kind === "room"
    ? await connection.request("to", c.key, "chat", { ...body, room: c.key })
    : await connection.request("private", c.key, "direct", { ...body, sid: connection.id });
  if (!c.waiting.has(body.id)) return; // its history came first
  if (answer.ok) {
    c.add({ event: "chat", body, offset: answer.offset });
  } else if (answer.code === "offline") {
    c.note(body.id, "waits for the connection");
  } else if (answer.code === "timeout" || answer.code === "unavailable") {
    waiting.sent = true;
    c.note(body.id, "not confirmed");
  } else {
    c.refuse(body.id, answer.message);
  }
}

// Sends what waits. A message that was sent without an answer may be stored, and
// the room's history tells; nothing tells that of a private one, so it is left.
async function flush(c) {
  const unsure = [...c.waiting.values()].some((w) => w.sent);
  if (unsure && c.kind === "room" && !await load(c)) return;
  for (const { body, sent } of [...c.waiting.values()]) if (!sent || c.kind === "room") await deliver(c, body);
}

function complain(text) {
  $("complaint").textContent = text;
  $("complaint").hidden = false;
}

function bindForms() {
  const onSubmit = (form, input, take) => $(form).addEventListener("submit", (e) => {
    e.preventDefault();
    const text = $(input).value.trim();
    $(input).value = "";
    $("complaint").hidden = true;
    if (text) take(text);
  });
  onSubmit("compose", "message-input", (text) => send(current, text));
  onSubmit("join", "room-input", async (room) => {
    const c = conversation("room", room);
    if (!c.joined) await join(c);
    if (c.joined) return show(c);
    c.list.remove();
    conversations.delete(`room ${room}`);
  });
  $("leave").addEventListener("click", () => leave(current));
  $("older").addEventListener("click", () => load(current, current.oldest));
  for (const button of $("views").children) {
    button.addEventListener("click", () => {
      document.body.dataset.view = button.dataset.show;
      render();
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    current.unread = 0;
    render();
  });
}

if (window.io) start();
else $("no-client").hidden = false;
