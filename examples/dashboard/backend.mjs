// The dashboard's backend for Node.js, without any package.
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";

const { JWT_SECRET, API_KEY, API_URL = "http://localhost:3001", NODE_URL = "http://localhost:3000", PORT = "8000" } = process.env;
if (!JWT_SECRET || !API_KEY) {
  console.error("JWT_SECRET and API_KEY must be set");
  process.exit(1);
}

// Returns a token for a user of the page: it joins the room and permits to read its
// history.
function token() {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({
    sub: "viewer",
    exp: Math.floor(Date.now() / 1000) + 300,
    rejoin: { rooms: ["dashboard"], can: { history: ["dashboard"] } },
  })}`;
  return `${signed}.${createHmac("sha256", JWT_SECRET).update(signed).digest("base64url")}`;
}

// Sends one event to the room. Repeated calls with the same key send it once.
async function emit(figures, key) {
  const response = await fetch(`${API_URL}/api/v1/emit`, {
    method: "POST",
    headers: { Authorization: `Bearer ${API_KEY}`, "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify({ rooms: ["dashboard"], event: "figures", args: [figures] }),
    signal: AbortSignal.timeout(5000),
  });
  if (!response.ok) throw new Error((await response.json()).detail);
}

const page = await readFile(new URL("index.html", import.meta.url));
createServer((request, response) => {
  if (request.url === "/token") {
    response.setHeader("Content-Type", "application/json").setHeader("Cache-Control", "no-store");
    response.end(JSON.stringify({ url: NODE_URL, token: token() }));
  } else if (request.url === "/") {
    response.setHeader("Content-Type", "text/html; charset=utf-8").end(page);
  } else {
    response.writeHead(404).end();
  }
}).listen(Number(PORT), "127.0.0.1", () => console.log(`open http://localhost:${PORT}/`));

const begun = Date.now();
for (let n = 1, orders = 0; ; n++) {
  const visitors = Math.round(50 + 30 * Math.sin(n / 10) + 10 * Math.random());
  orders += Math.round(Math.random() * 3);
  await emit({ n, visitors, orders }, `figures-${begun}-${n}`).catch((err) => console.error(`number ${n}: ${err.message}`));
  await new Promise((resolve) => setTimeout(resolve, 1000));
}
