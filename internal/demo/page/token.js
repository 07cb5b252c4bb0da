// The token that this tab sends to a node that requires one.

const $ = (id) => document.getElementById(id);

export const wanted = document.body.dataset.wantsToken === "true";

// One that comes with the address must not stay there: addresses are shown, kept
// and passed on. The part after # was never sent to the node.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.token = given;
  history.replaceState(null, "", location.pathname + location.search);
}

export const token = () => sessionStorage.token ?? "";

// Asks for a token and says why; nothing to say hides the question.
export function ask(why) {
  $("token-form").hidden = !why;
  $("token-why").textContent = why;
  $("token-cancel").hidden = true;
  if (why) $("token-input").focus();
}

// Ties the form to use(token), which says what is wrong with it, if anything.
export function onToken(use) {
  $("token-renew").hidden = !wanted;
  $("token-renew").addEventListener("click", () => {
    ask("The new token replaces the current one, without a new connection.");
    $("token-cancel").hidden = false;
  });
  $("token-cancel").addEventListener("click", () => ask(""));
  $("token-form").addEventListener("submit", async (e) => {
    e.preventDefault();
    const before = token();
    sessionStorage.token = $("token-input").value.trim();
    $("token-input").value = "";
    const wrong = await use(token());
    if (wrong) sessionStorage.token = before;
    ask(wrong);
  });
}
