// Drives stock Socket.IO clients for the Go tests. Commands come in as JSON
// lines, {id, do, socket, …}, and are answered with {id, ok} or {id, error};
// what the sockets hear goes out as {socket, report, …}. Bytes travel as
// {"$bytes": "<hex>"}.
"use strict";

const { createHmac } = require("node:crypto");

const clients = {
  "4.8.4": require("socket.io-client"),
  "4.0.0": require("socket.io-client-4-0-0"),
};
const sockets = new Map();

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

// Bytes are wrapped before JSON sees them: a Buffer has a toJSON of its own.
function wrap(value) {
  if (value instanceof ArrayBuffer) return { $bytes: Buffer.from(value).toString("hex") };
  if (ArrayBuffer.isView(value)) {
    return { $bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("hex") };
  }
  if (Array.isArray(value)) return value.map(wrap);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, wrap(v)]));
  }
  return value;
}

function unwrap(value) {
  if (Array.isArray(value)) return value.map(unwrap);
  if (value && typeof value === "object") {
    if (typeof value.$bytes === "string") return Buffer.from(value.$bytes, "hex");
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unwrap(v)]));
  }
  return value;
}

const state = (socket) => ({
  id: socket.id,
  connected: socket.connected,
  recovered: socket.recovered === true,
  pid: socket._pid,
  offset: socket._lastOffset,
  engine: socket.io.engine && socket.io.engine.id,
  transport: socket.io.engine && socket.io.engine.transport && socket.io.engine.transport.name,
});

function watch(name, socket) {
  sockets.set(name, socket);
  const report = (what, more) => say({ socket: name, report: what, ...more });
  socket.on("connect", () => report("connect", state(socket)));
  socket.on("disconnect", (reason) => report("disconnect", { reason }));
  socket.on("connect_error", (err) => report("connect_error", { reason: err.message, args: [err.data] }));
  socket.onAny((event, ...args) => {
    const asked = typeof args.at(-1) === "function" ? args.pop() : undefined;
    report("event", { event, args: wrap(args), asked: Boolean(asked) });
    if (asked) asked(...args);
  });
}

// Waits until a client does not change its transport. One whose engine is closed
// meanwhile hears events twice, which is its own fault: see TestEngineClosedWhileUpgrading.
async function settled(engine) {
  if (!engine.upgrading) return;
  await new Promise((done) => {
    engine.once("upgrade", done);
    engine.once("upgradeError", done);
  });
  await new Promise(setImmediate); // it processes what it has received
}

const commands = {
  // A socket with a connection of its own.
  open({ socket, version, url, options }) {
    const defaults = { reconnectionDelay: 20, reconnectionDelayMax: 200, forceNew: true };
    watch(socket, clients[version].io(url, { ...defaults, ...options }));
  },
  // A socket for another namespace, on the connection of an open one.
  join({ socket, via, namespace, options }) {
    watch(socket, sockets.get(via).io.socket(namespace, options));
  },
  // Has the socket be in some rooms whenever it is connected: joins them anew where
  // it was not recovered, and reports when that is done.
  member({ socket, rooms }) {
    const s = sockets.get(socket);
    let joined = false;
    const join = async () => {
      if (!s.recovered) joined = false;
      while (s.connected && !joined) {
        const answer = await s.timeout(5000).emitWithAck("join", rooms).catch(() => ({}));
        if (answer.ok) {
          joined = true;
          say({ socket, report: "joined" });
        }
      }
    };
    s.on("connect", join);
    if (s.connected) return join();
  },
  // Joins some rooms with their last events, stays for a while, leaves and joins again. Reports each
  // ack of a join, and whether the socket may have been in the rooms before it: then an earlier ack
  // was lost.
  rewinder({ socket, rooms, last, stay }) {
    const s = sockets.get(socket);
    let turn = 0;
    let unsure = false;
    let inside = false;
    const ask = (args, done) => {
      const mine = ++turn;
      s.timeout(5000).emit(...args, (err, answer) => {
        if (mine !== turn) return;
        if (!err && answer.ok) return done(answer);
        unsure = true;
        if (s.connected) setTimeout(() => mine === turn && s.connected && join(), 20);
      });
    };
    const join = () =>
      ask(["join", rooms, { rewind: last }], (answer) => {
        inside = true;
        say({ socket, report: "rewound", args: [wrap(answer)], unsure });
        unsure = false;
        later();
      });
    const leave = () => {
      inside = false;
      ask(["leave", rooms], () => {
        say({ socket, report: "left" });
        unsure = false;
        join();
      });
    };
    const later = () => {
      const mine = ++turn;
      setTimeout(() => mine === turn && s.connected && leave(), Math.random() * stay);
    };
    const begin = () => {
      unsure = s.recovered && !inside;
      if (!s.recovered) inside = false;
      if (inside) return later();
      say({ socket, report: "left" }); // perhaps: the ack of a leave may have been lost
      join();
    };
    s.on("connect", begin);
    s.on("disconnect", () => turn++);
    if (s.connected) begin();
  },
  emit({ socket, args }) {
    sockets.get(socket).emit(...unwrap(args));
  },
  ask({ socket, args }) {
    return new Promise((resolve) => {
      sockets.get(socket).emit(...unwrap(args), (...answer) => resolve(wrap(answer)));
    });
  },
  state: ({ socket }) => state(sockets.get(socket)),
  // Ends the connection, as a page that goes offline would; the client reconnects.
  // One that is not open yet is left alone: the client would wait for it.
  async cut({ socket }) {
    const { engine } = sockets.get(socket).io;
    await settled(engine);
    if (engine.readyState === "open") engine.close();
  },
  // Ends it, too, and stays away until back.
  async away({ socket }) {
    const { io } = sockets.get(socket);
    await settled(io.engine);
    io.reconnection(false);
    io.engine.close();
  },
  back({ socket }) {
    sockets.get(socket).io.reconnection(true);
    sockets.get(socket).connect();
  },
  // What the client says of itself when it connects next.
  auth({ socket, auth }) {
    sockets.get(socket).auth = auth;
  },
  // The same as functions do it: what it says each time that it connects, the last
  // one from then on.
  auths({ socket, auths }) {
    sockets.get(socket).auth = (say) => say(auths.length > 1 ? auths.shift() : auths[0]);
  },
  // The same with a fresh token each time, which is good for some seconds. One that
  // has become too old in flight is refused; the next one need not be.
  tokens({ socket, secret, claims, life }) {
    const s = sockets.get(socket);
    const encode = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
    s.auth = (say) => {
      const text = encode({ alg: "HS256" }) + "." + encode({ ...claims, exp: Math.floor(Date.now() / 1000 + life) });
      say({ token: text + "." + createHmac("sha256", secret).update(text).digest("base64url") });
    };
    s.on("connect_error", () => s.active || setTimeout(() => s.connect(), 100));
  },
  connect({ socket }) {
    sockets.get(socket).connect();
  },
  disconnect({ socket }) {
    sockets.get(socket).disconnect();
  },
};

require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const command = JSON.parse(line);
    try {
      say({ id: command.id, ok: (await commands[command.do](command)) ?? null });
    } catch (err) {
      say({ id: command.id, error: String(err && err.stack) });
    }
  })
  .on("close", () => process.exit(0));
