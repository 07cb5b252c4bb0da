// The state of the connection, the banner that says how a cut ended, and the
// buttons that make one.

const $ = (id) => document.getElementById(id);
const cutButtons = document.querySelectorAll("[data-cut]");

// Ties the buttons to cut(seconds) and open().
export function control(connection) {
  for (const button of cutButtons) {
    button.addEventListener("click", () => {
      const seconds = Number(button.dataset.cut);
      connection.cut(seconds);
      say("cut", `Connection cut for ${seconds} s. Messages sent meanwhile arrive after that.`);
      $("banner").style.setProperty("--seconds", `${seconds}s`);
    });
  }
  $("offline").addEventListener("click", () => {
    if (["offline", "closed"].includes(connection.state)) return connection.open();
    connection.cut();
    say("offline", "Offline until you reconnect. Messages sent meanwhile arrive then.");
  });
}

// code is set if the node has refused the connection, with the reason.
export function showState(connection, reason, code) {
  const { state } = connection;
  $("state").dataset.state = state;
  $("state").textContent = state;
  $("transport").textContent = connection.transport || "none";
  $("socket-id").textContent = connection.id ?? "none";
  for (const button of cutButtons) button.disabled = state !== "connected";
  const away = state === "offline" || state === "closed";
  $("offline").disabled = !away && state !== "connected" && state !== "cut";
  $("offline").setAttribute("aria-pressed", away);
  $("offline").textContent = away ? "Reconnect" : "Go offline";
  if (state === "closed") say("closed", code ? `Connection refused: ${reason}.` : `The node closed the connection: ${reason}.`);
  if (state === "reconnecting" && reason) say("reconnecting", `Connection lost (${reason}). Reconnecting.`);
}

export function showOutcome({ outcome, missed, ordered }) {
  const events = missed === 1 ? "1 missed event" : `${missed} missed events`;
  if (outcome === "new") $("banner").hidden = true;
  else if (outcome === "lost") say("lost", "Could not be recovered: new session. Rooms joined again, history loaded anew.");
  else if (!ordered) say("disordered", `Recovered: ${events}, but not in order. This is a bug of the node.`, missed);
  else say("recovered", missed ? `Recovered: ${events}, in order.` : "Recovered: nothing was missed.", missed);
}

function say(outcome, text, missed = "") {
  const banner = $("banner");
  banner.hidden = false;
  banner.dataset.outcome = outcome;
  banner.dataset.missed = missed;
  banner.textContent = text;
}
