// One stock client: what happens to it, a JSON object per line.
// usage: node client.js URL TRANSPORT PATH CASE
const { io } = require("socket.io-client");
const [url, transport, path, kind] = process.argv.slice(2);
const say = (o) => console.log(JSON.stringify(o));
const options = {
  path,
  addTrailingSlash: kind !== "slashless",
  transports: transport === "upgrade" ? ["polling", "websocket"] : [transport],
  reconnectionDelay: 10,
  reconnectionDelayMax: 10,
  extraHeaders: process.env.ORIGIN ? { Origin: process.env.ORIGIN } : undefined,
};
if (kind === "msgpack") options.parser = require("socket.io-msgpack-parser");
const socket = io(url, options);
let connects = 0;
let upgradeFailed = false;
socket.io.engine.on("upgradeError", () => { upgradeFailed = true; });
const done = () => { socket.off("disconnect"); socket.close(); process.exit(0); };
const echo = () => socket.emit("echo", "hello", (answer) => {
  say({ echo: answer, transport: socket.io.engine.transport.name });
  done();
});
socket.on("connect_error", (e) => {
  say({ error: e.message, active: socket.active });
  if (kind === "msgpack") done();
});
socket.on("disconnect", (reason) => say({ disconnect: reason }));
socket.on("connect", () => {
  say({ connect: ++connects });
  if (kind === "busy") {
    socket.on("done", (handled) => {
      say({ echo: handled, transport: socket.io.engine.transport.name });
      done();
    });
    for (let i = 0; i < 300; i++) socket.emit("work", i);
  } else if (kind === "oversize") {
    if (connects === 1) socket.emit("echo", "x".repeat(5000));
    else done();
  } else if (upgradeFailed) {
    echo();
  } else if (transport === "upgrade" && socket.io.engine.transport.name !== "websocket") {
    socket.io.engine.on("upgrade", echo);
    if (kind === "stays") socket.io.engine.on("upgradeError", echo);
  } else echo();
});
