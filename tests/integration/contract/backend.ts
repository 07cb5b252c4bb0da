// A backend with a client that is generated from the contract: it compiles only if what the API
// does not require is optional, and what it always returns is not.
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

declare const process: { argv: string[] };
const [baseUrl, key] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });

const emitted = await api.POST("/emit", { body: { rooms: ["lobby"], event: "news" } });
if (!emitted.data) throw new Error(emitted.error.detail);
const offset: string = emitted.data.offset;

const batch = await api.POST("/batch", { body: { emits: [{ everyone: true, event: "news", args: [1, "two"] }] } });
const statuses: number[] = batch.data?.results.map((r) => r.status) ?? [];

const asked = await api.POST("/ask", { body: { users: ["nobody"], event: "really?" } });
const answers: number | undefined = asked.data?.answers.length;

const joined = await api.POST("/join", { body: { users: ["nobody"], join: ["lobby"] } });
const left = await api.POST("/leave", { body: { everyone: true, leave: ["lobby"] } });
const disconnected = await api.POST("/disconnect", { body: { sockets: ["nobody"] } });
const sockets = await api.GET("/sockets");
const rooms = await api.GET("/rooms", { params: { query: { namespace: "/" } } });
const members = await api.GET("/members", { params: { query: { room: "lobby" } } });
const history = await api.GET("/history", { params: { query: { room: "lobby", limit: 10 } } });
const refused = await api.POST("/emit", { body: { rooms: ["lobby"], event: "connect" } });

console.log(JSON.stringify({
  offset: offset !== "", statuses, answers,
  written: [joined, left, disconnected].map((r) => r.response.status),
  read: [sockets.data?.sockets, rooms.data?.rooms, members.data?.members].map((list) => list?.length),
  events: history.data?.events.map((e) => e.event),
  code: refused.error?.code,
}));
