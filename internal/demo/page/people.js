// People in the room: this tab's nickname, and the nicknames of other sockets.

import { element } from "./element.js";

const MANNERS = ["Brisk", "Calm", "Early", "Gentle", "Keen", "Merry", "Quiet", "Swift"];
const BIRDS = ["Crane", "Dove", "Egret", "Finch", "Heron", "Jay", "Kite", "Lark",
  "Martin", "Owl", "Plover", "Robin", "Swallow", "Tern", "Thrush", "Wren"];

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const names = new Map(); // nickname by socket id

// This tab's mark in the ids of its messages; it survives a reload.
const tab = sessionStorage.tab ??= crypto.getRandomValues(new Uint32Array(2)).join("");
export const newMessageID = () => `${tab}.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
export const isOwn = (messageID) => messageID.startsWith(`${tab}.`);

export let nickname = localStorage.nickname ?? `${pick(MANNERS)} ${pick(BIRDS)}`;

// Fills the field and calls renamed(before) when a new name was put in it.
export function editNickname(input, renamed) {
  input.value = nickname;
  input.addEventListener("keydown", (e) => e.key === "Enter" && input.blur());
  input.addEventListener("change", () => {
    const before = nickname;
    nickname = input.value = input.value.trim() || before;
    if (nickname === before) return;
    localStorage.nickname = nickname;
    renamed(before);
  });
}

export const knows = (id) => names.has(id);
export const meet = (id, name) => names.set(id, name);
export const nameOf = (id) => names.get(id) ?? id.slice(0, 6);

// A socket that is no longer a member, and has not said that it leaves, has lost its connection, and
// may reconnect as the same socket for a while.
const AWAY_MS = 120_000;
const seen = new Map(); // by room: by id, when the socket was last a member, and its user
const own = new Set(); // ids that this tab has had

export const hasLeft = (room, id) => seen.get(room)?.delete(id);

// Returns the sockets that are away from a room with some members, and remembers these.
function awayFrom(room, members) {
  if (!seen.has(room)) seen.set(room, new Map());
  const known = seen.get(room);
  const now = Date.now();
  for (const { id, user } of members) known.set(id, { at: now, user });
  for (const [id, { at }] of known) if (now - at > AWAY_MS) known.delete(id);
  const here = new Set(members.flatMap(({ id }) => [id, nameOf(id)])); // also under another id
  return [...known].filter(([id]) => !here.has(id) && !here.has(nameOf(id)) && !own.has(id))
    .map(([id, { user }]) => ({ id, user, away: true }));
}

// Lists the members of a room, this socket first, and those that are away. choose(id) is called for a
// click on another.
export function showMembers(list, room, { members, partial }, ownID, choose) {
  own.add(ownID);
  const away = partial ? [] : awayFrom(room, members);
  const rank = ({ id, user }) => (id === ownID ? "" : names.get(id) || user || id);
  list.replaceChildren(...[...members, ...away].toSorted((a, b) => rank(a).localeCompare(rank(b))).map(({ id, user, away }) => element("li", {},
    id === ownID
      ? element("span", { class: "self" }, element("bdi", {}, nickname), element("span", { class: "you" }, " (you)"))
      : element("button", { "data-testid": "member", "data-id": id, "data-away": away, onclick: () => choose(id),
        title: away ? "Has lost the connection, and gets messages when it is back" : "Write in private" },
        element("bdi", {}, names.get(id) || user || nameOf(id)), away ? element("span", { class: "you" }, "away") : ""))));
}
