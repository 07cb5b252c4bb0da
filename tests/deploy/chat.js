// Chats through the cluster of docker-compose.yml with stock clients, kills the
// node of one of them, and starts it again. Arguments: the balancer's URL, and
// the name of the compose project, whose containers have it on a label.
"use strict";

const assert = require("node:assert");
const { spawnSync } = require("node:child_process");
const { io } = require("socket.io-client");

const [url, project] = process.argv.slice(2);
const patience = 30_000; // for everything that should happen soon

// What docker says on either channel; nodes log to stderr.
function docker(...args) {
  const { status, stdout, stderr, error } = spawnSync("docker", args, { encoding: "utf8", timeout: patience });
  if (status !== 0) throw error || new Error(`docker ${args.join(" ")}: ${stderr}`);
  return stdout + stderr;
}

// Session ids begin with the id of their node, which is in that node's log.
const nodeOf = (client) => client.io.engine.id.slice(0, 4);

function containerOf(node) {
  const ids = docker("ps", "-q", "--filter", `label=com.docker.compose.project=${project}`).trim().split("\n");
  const found = ids.find((id) => docker("logs", id).includes(`"node":"${node}"`));
  assert(found, `no container has the node ${node}`);
  return found;
}

async function until(what, condition) {
  for (const end = Date.now() + patience; !condition(); ) {
    assert(Date.now() < end, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const clients = [];
async function connect(options) {
  const client = io(url, { forceNew: true, reconnectionDelay: 500, reconnectionDelayMax: 1000, ackTimeout: patience, ...options });
  clients.push(client);
  client.heard = [];
  client.on("chat", (n) => client.heard.push(n));
  await until("a client connects", () => client.connected);
  return client;
}

async function main() {
  const ann = await connect(); // polls first, then upgrades
  const polls = await connect({ transports: ["polling"] });
  let bob = await connect();
  while (nodeOf(bob) === nodeOf(ann)) {
    bob.disconnect();
    bob = await connect();
  }
  for (const member of [ann, polls]) {
    const { ok } = await member.emitWithAck("join", "lobby");
    assert(ok, "cannot join");
  }
  await until("the upgrade", () => ann.io.engine.transport.name === "websocket");
  console.log(`ann is on ${nodeOf(ann)}, bob on ${nodeOf(bob)}, one that only polls on ${nodeOf(polls)}`);

  const said = [];
  async function say(count) {
    for (let i = 0; i < count; i++) {
      said.push(said.length);
      const { ok, message } = await bob.emitWithAck("to", "lobby", "chat", said.length - 1);
      assert(ok, message);
    }
  }
  const everyoneHeardIt = async () => {
    for (const member of [ann, polls]) {
      await until("everything is heard", () => member.heard.length >= said.length);
      assert.deepStrictEqual(member.heard, said, "once, and in order");
    }
  };

  await say(20);
  await everyoneHeardIt();
  console.log("what bob says is heard on every node");

  const { id } = ann;
  const before = nodeOf(ann);
  const container = containerOf(before);
  let missed;
  ann.once("connect", () => (missed = said.length - ann.heard.length));
  docker("kill", "--signal", "KILL", container);
  await say(30);
  await until("ann is back", () => missed !== undefined);
  assert(ann.recovered && ann.id === id && nodeOf(ann) !== before, "ann has another id now");
  assert(missed > 0, "ann was away, and nothing was said");
  await everyoneHeardIt();
  console.log(`${before} was killed; ann is the same on ${nodeOf(ann)} and got what she missed`);

  docker("start", container);
  await until("the node is ready again", () => docker("inspect", "-f", "{{.State.Health.Status}}", container).includes("healthy"));
  const isBack = (client) => docker("logs", container).includes(`"node":"${nodeOf(client)}"`);
  for (const end = Date.now() + patience; !isBack(await connect()); ) {
    assert(Date.now() < end, "timed out: the node gets clients again");
  }
  await say(10);
  await everyoneHeardIt();
  console.log("the node is back and has clients again");
}

const late = setTimeout(() => {
  console.error("chat: not done in four minutes");
  process.exit(1);
}, 240_000);

main()
  .catch((err) => {
    console.error("chat:", err);
    process.exitCode = 1;
  })
  .finally(() => {
    clearTimeout(late);
    for (const client of clients) client.disconnect();
  });
