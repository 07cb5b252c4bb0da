// The npm package socket.io behind the events join, to and echo of a node's
// built-in application, with everything switched off that would slow it down:
// long-polling, compression, client files and, unless RECOVERY=on, connection
// state recovery. With REDIS_URL it is a node of a cluster, by the Redis Streams
// adapter, or by the plain one with ADAPTER=redis. It listens on a free port of
// 127.0.0.1, says which on stderr, and ends on SIGTERM.

"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

// clusterAdapter returns what connects this node to the others.
async function clusterAdapter(url) {
  const { createClient } = require("redis");
  const client = await createClient({ url }).connect();
  if (process.env.ADAPTER === "redis") {
    return require("@socket.io/redis-adapter").createAdapter(client, await client.duplicate().connect());
  }
  return require("@socket.io/redis-streams-adapter").createAdapter(client);
}

const server = http.createServer();
const io = new Server(server, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
  connectionStateRecovery:
    process.env.RECOVERY === "on" ? { maxDisconnectionDuration: 120_000 } : undefined,
});

io.on("connection", (socket) => {
  socket.on("join", (rooms, ack) => {
    socket.join(rooms);
    ack({ ok: true, rooms: [...socket.rooms] });
  });
  socket.on("to", (rooms, event, ...args) => {
    const ack = args.pop();
    socket.to(rooms).emit(event, ...args);
    ack({ ok: true });
  });
  socket.on("echo", (...args) => {
    const ack = args.pop();
    ack(...args);
  });
});

async function listen() {
  if (process.env.REDIS_URL) {
    io.adapter(await clusterAdapter(process.env.REDIS_URL));
  }
  server.listen(0, "127.0.0.1", () => {
    const { address, port } = server.address();
    console.error(JSON.stringify({ msg: "listening", addr: `${address}:${port}` }));
  });
}

listen();

process.on("SIGTERM", () => process.exit(0));
