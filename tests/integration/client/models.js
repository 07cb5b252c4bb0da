// Clients as people write them, at their busiest: a chat, a game and a dashboard. Each
// model counts what it sends, in events and in bytes, at its peak in a second and in ten,
// what it reads, and the answers that are not ok. node models.js URL [SAMPLES] prints that as
// JSON; SAMPLES are how many the rooms of the dashboard have, up to 50.
"use strict";
const { io } = require("socket.io-client");
const [url, samples = 50] = process.argv.slice(2);

// A tally is what the clients of one model have sent, and got.
const tallies = {};
let failures, sent, read;

function connect(options) {
  const [to, socket] = [sent, io(url, { transports: ["websocket"], forceNew: true, ...options })];
  socket.io.on("open", () =>
    socket.io.engine.on("packetCreate", ({ type, data }) => {
      if (type !== "message") return;
      if (typeof data !== "string") to.at(-1)[1] += data.byteLength;
      else if (data[0] === "2" || data[0] === "5") to.push([performance.now(), data.length]);
    }),
  );
  return new Promise((connected) => socket.once("connect", () => connected(socket)));
}

async function ask(socket, ...args) {
  const answer = await socket.timeout(20000).emitWithAck(...args);
  if (!answer.ok) failures[answer.code] = (failures[answer.code] ?? 0) + 1;
  if (answer.events) {
    read.pages++;
    for (const event of answer.events) read.bytes += 100 + JSON.stringify(event.args).length;
  }
  return answer;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const models = {
  // Joins twenty rooms and reads each; types while pasting 30 messages of 2 kB and 8 pictures
  // of 900 kB; loses its connection for a while, in which the page continues.
  async chat() {
    const socket = await connect({ reconnectionDelay: 100 });
    const rooms = Array.from({ length: 20 }, (_, i) => `chat:${i}`);
    await Promise.all(rooms.map((room) => ask(socket, "join", room)));
    await Promise.all(rooms.map((room) => ask(socket, "history", room)));
    const asked = [];
    for (let i = 0; i < 30; i++) {
      socket.emit("to", rooms[0], "typing", true);
      asked.push(ask(socket, "to", rooms[0], "message", "x".repeat(2000)));
    }
    for (let i = 0; i < 8; i++) asked.push(ask(socket, "to", rooms[0], "picture", Buffer.alloc(900_000)));
    await Promise.all(asked);
    socket.io.engine.close();
    for (let i = 0; i < 20; i++) asked.push(ask(socket, "to", rooms[0], "message", "from the lift"));
    await new Promise((again) => socket.once("connect", again));
    await Promise.all([...asked, ...rooms.map((room) => ask(socket, "join", room))]);
    await Promise.all(rooms.map((room) => ask(socket, "history", room, { limit: 200 })));
    return socket;
  },

  // Sends its position 60 times a second and wants each acked. Then it has no connection for
  // half a minute, and sends all that it has kept.
  async game() {
    const socket = await connect({ reconnectionDelay: 500, randomizationFactor: 0 });
    await ask(socket, "join", "match");
    const asked = [];
    const frame = (i) => asked.push(ask(socket, "to", "match", "move", { i, x: 1.25, y: 2.5, z: -3.75, keys: ["w", "shift"] }));
    for (let i = 0; i < 60; i++, await pause(1000 / 60)) frame(i);
    const away = new Promise((closed) => socket.once("disconnect", closed));
    socket.io.engine.close();
    await away;
    for (let i = 0; i < 30 * 60; i++) frame(i);
    await Promise.all(asked);
    return socket;
  },

  // Opens 300 rooms with their histories and members, as a wall of charts does.
  async dashboard() {
    const rooms = Array.from({ length: 300 }, (_, i) => `metric:${i}`);
    for (let i = 0; i < samples; i += 10) {
      const feed = await connect();
      for (let j = i; j < Math.min(i + 10, samples); j++) await Promise.all(rooms.map((room) => ask(feed, "to", room, "sample", sample(j))));
      feed.disconnect();
    }
    sent.length = 0;
    const socket = await connect();
    await Promise.all(rooms.map((room) => ask(socket, "join", room)));
    await Promise.all(rooms.map((room) => ask(socket, "history", room)));
    await Promise.all(rooms.map((room) => ask(socket, "members", room)));
    return socket;
  },
};

const sample = (i) => ({ at: 1700000000000 + i, value: 0.123456789 * i, unit: "ms", labels: { host: "web-17.example.org", region: "eu-central-1", status: "ok" } });

// The most in any window of so many milliseconds.
function peak(window) {
  let first = 0, bytes = 0, most = { events: 0, bytes: 0 };
  sent.forEach(([at, size], i) => {
    for (bytes += size; sent[first][0] <= at - window; first++) bytes -= sent[first][1];
    most = { events: Math.max(most.events, i - first + 1), bytes: Math.max(most.bytes, bytes) };
  });
  return most;
}

(async () => {
  for (const model in models) {
    [failures, sent, read] = [{}, [], { pages: 0, bytes: 0 }];
    const socket = await models[model]();
    socket.disconnect();
    tallies[model] = { second: peak(1000), ten: peak(10000), read, failures };
  }
  console.log(JSON.stringify(tallies));
})();
