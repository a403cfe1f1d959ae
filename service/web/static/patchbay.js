// What scripts add to pages that work without them: copying, progress, lists that renew themselves.

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.textContent = (await copy(source)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

async function copy(source) {
  if (navigator.clipboard) { // only on https and on loopback
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch { /* not allowed: mark the text, so that the keyboard can */ }
  }
  getSelection().selectAllChildren(source);
  return false;
}

// ── one operation, by server-sent events ─────────────────────────────────────────────────────

for (const live of document.querySelectorAll("[data-events]")) follow(live);

function follow(live) {
  const part = (name) => live.querySelector(`[data-live=${name}]`);
  const events = new EventSource(live.dataset.events);
  events.addEventListener("operation", (event) => {
    const operation = JSON.parse(event.data);
    const state = document.createElement("span");
    state.className = `state ${operation.state}`;
    state.textContent = operation.state;
    part("state").replaceChildren(state);
    part("progress").value = operation.progress;
    part("share").textContent = `${Math.floor(operation.progress * 100)}\u202f%`;
    if (part("message").textContent !== operation.message) part("message").textContent = operation.message;
  });
  events.addEventListener("ended", () => {
    events.close();
    location.reload(); // the page of an ended operation says what came of it
  });
  // A page that waits in the back/forward cache must not hold one of the few connections.
  addEventListener("pagehide", () => events.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

// ── a list that is read again every few seconds while somebody looks at it ───────────────────

for (const list of document.querySelectorAll("[data-again-s]")) renew(list.id, list.dataset.againS * 1000);

function renew(id, every) {
  setInterval(async () => {
    const list = document.getElementById(id);
    if (document.hidden || list.contains(document.activeElement) || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok || answer.redirected) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(id);
      if (fresh && fresh.innerHTML !== list.innerHTML) list.replaceWith(document.adoptNode(fresh));
    } catch { /* the service restarts: the next round will tell */ }
  }, every);
}
