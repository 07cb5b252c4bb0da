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

// Lists members, this socket first. choose(id) is called for a click on another.
export function showMembers(list, members, ownID, choose) {
  const rank = ({ id, user }) => (id === ownID ? "" : names.get(id) || user || id);
  list.replaceChildren(...members.toSorted((a, b) => rank(a).localeCompare(rank(b))).map(({ id, user }) => element("li", {},
    id === ownID
      ? element("span", { class: "self" }, nickname, element("span", { class: "you" }, " (you)"))
      : element("button", { "data-testid": "member", "data-id": id, title: `Write to ${id} in private`, onclick: () => choose(id) },
        names.get(id) || user || nameOf(id)))));
}
