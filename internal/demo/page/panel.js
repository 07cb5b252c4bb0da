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
      say("cut", `Cut for ${seconds} s. What others write meanwhile arrives after that.`);
      $("banner").style.setProperty("--seconds", `${seconds}s`);
    });
  }
  $("offline").addEventListener("click", () => {
    if (["offline", "closed"].includes(connection.state)) return connection.open();
    connection.cut();
    say("offline", "Offline until you reconnect. What others write meanwhile arrives then.");
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
  if (state === "closed") say("closed", code ? `Connection refused: ${reason}.` : "The server closed the connection.");
  if (state === "reconnecting" && reason) say("reconnecting", "Connection lost. Reconnecting.");
}

export function showOutcome({ outcome, missed, ordered }) {
  if (outcome === "new") $("banner").hidden = true;
  else if (outcome === "lost") say("lost", "Too much was missed to catch up. The newest messages were loaded.");
  else if (!ordered) say("disordered", `Recovered: ${missed} missed, but not in order. This is an error of the server.`, missed);
  else say("recovered", missed ? `Recovered: ${missed} missed, in order.` : "Recovered: nothing was missed.", missed);
}

function say(outcome, text, missed = "") {
  const banner = $("banner");
  banner.hidden = false;
  banner.dataset.outcome = outcome;
  banner.dataset.missed = missed;
  banner.textContent = text;
  for (const fading of banner.getAnimations()) { // begin anew
    fading.cancel();
    fading.play();
  }
}
