/* global io */
// The connection to the node, and ways to break it on purpose.

import { compare } from "./offset.js";

const MARK = "mark"; // the event that this connection sends to itself
const ANSWER_MS = 10_000;

// One socket. It calls these handlers:
//   state(state, reason, code)               connecting, connected, reconnecting, cut, offline
//                                            or closed, if the node has closed it; the
//                                            code is that of a refused client
//   event({event, args, offset, missed})
//   published({event, args, offset})         what this socket sent, once it is stored
//   ready({outcome, missed, ordered})        connected, and everything missed has come;
//                                            outcome is new, recovered or lost
export class Connection {
  #socket;
  #on;
  #cutTimer = 0;
  #cut = false;
  #outcome = "new";
  #marks = 0;
  #last = null; // the newest offset received
  #gap = null; // {missed, ordered} from a disconnect until everything missed has come

  // token() returns the token for the node, or "".
  constructor(path, token, handlers) {
    this.#on = handlers;
    this.#socket = io({ path, autoConnect: false, auth: (show) => show({ token: token() }), reconnectionDelay: 300, reconnectionDelayMax: 3000 });
    this.#socket.on("connect", () => this.#connected());
    this.#socket.on("disconnect", (reason) => this.#disconnected(reason));
    this.#socket.on("connect_error", (error) => this.#on.state(this.state, error.message, error.data?.code));
    this.#socket.onAny((event, ...args) => this.#received(event, args));
    this.#socket.io.on("open", () => {
      this.#socket.io.engine.on("upgrade", () => this.#on.state(this.state));
    });
  }

  get id() { return this.#socket.id; }
  get transport() { return this.#socket.connected ? this.#socket.io.engine.transport.name : ""; }

  get state() {
    if (this.#socket.connected) return "connected";
    if (this.#cut) return this.#cutTimer ? "cut" : "offline";
    if (!this.#socket.active) return "closed";
    return this.#outcome === "new" ? "connecting" : "reconnecting";
  }

  // Connects; after a cut, with the session's id and the last offset, so that
  // the node can tell what was missed.
  open() {
    clearTimeout(this.#cutTimer);
    this.#cutTimer = 0;
    this.#cut = false;
    this.#socket.io.reconnection(true);
    this.#socket.connect();
    this.#on.state(this.state);
  }

  // Drops the transport, for some seconds or until open is called. No close is
  // sent (disconnect would send one, and end the session): the node sees what it
  // sees when a network is lost.
  cut(seconds) {
    clearTimeout(this.#cutTimer);
    this.#cut = true;
    this.#cutTimer = seconds ? setTimeout(() => this.open(), seconds * 1000) : 0;
    this.#socket.io.reconnection(false);
    if (this.#socket.connected) this.#socket.io.engine.close();
    else this.#on.state(this.state);
  }

  // Emits an event and returns the node's answer, {ok: true, …} or {ok: false,
  // code, message}. Where none came the code is timeout; what was never sent
  // has the code offline.
  request(event, ...args) {
    if (!this.#socket.connected) {
      return Promise.resolve({ ok: false, code: "offline", message: "not connected" });
    }
    return new Promise((resolve) => {
      this.#socket.timeout(ANSWER_MS).emit(event, ...args, (error, answer) => {
        if (error) answer = { ok: false, code: "timeout", message: "no answer" };
        if (answer.ok && answer.offset) this.#on.published({ event, args, offset: answer.offset });
        resolve(answer);
      });
    });
  }

  #connected() {
    if (!this.#socket.recovered) {
      if (this.#outcome === "recovered") this.#outcome = "lost";
      this.#gap = null; // what comes now is new, not missed
    }
    this.#on.state("connected");
    this.#sendMark();
  }

  // The node delivers all that was missed before anything newer. So an event
  // sent to oneself after the connect marks, when it arrives, the replay's end.
  async #sendMark() {
    const mark = ++this.#marks;
    const answer = await this.request("self", MARK, { mark });
    if (!answer.ok && answer.code !== "timeout" && mark === this.#marks) this.#settled();
  }

  #settled() {
    const { missed, ordered } = this.#gap ?? { missed: 0, ordered: true };
    const outcome = this.#outcome;
    this.#gap = null;
    this.#outcome = "recovered"; // unless the next connect says otherwise
    this.#on.ready({ outcome, missed, ordered });
  }

  #disconnected(reason) {
    this.#gap ??= { missed: 0, ordered: true }; // a cut during a replay continues the count
    this.#on.state(this.state, reason);
  }

  #received(event, args) {
    // The page's own events end with an object, so a trailing string is the offset.
    const offset = typeof args.at(-1) === "string" ? args.pop() : "";
    const ordered = !this.#last || !offset || !(compare(this.#last, offset) >= 0);
    this.#last = offset || this.#last;
    if (event === MARK) {
      if (args[0]?.mark === this.#marks) this.#settled();
    } else if (this.#gap) {
      this.#gap.missed++;
      this.#gap.ordered &&= ordered;
    }
    this.#on.event({ event, args, offset, missed: this.#gap !== null && event !== MARK });
  }
}
