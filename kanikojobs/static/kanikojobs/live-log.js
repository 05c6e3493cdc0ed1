"use strict";
// Appends the lines of a running build's log to the page as they come. Text only: a log is hostile.
const place = document.getElementById("live-log");
const most = 500000;

async function follow() {
  try {
    const answer = await fetch(place.dataset.url, { credentials: "same-origin" });
    if (answer.status === 204) {
      place.textContent = "No log yet. The page looks again every few seconds.";
      setTimeout(follow, 1000 * Number(answer.headers.get("Retry-After")));
      return;
    }
    if (!answer.ok || !answer.body) {
      place.textContent = "The log cannot be read now.";
      return;
    }
    place.textContent = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      place.append(document.createTextNode(value));
      if (place.textContent.length > most) place.textContent = place.textContent.slice(-most / 2);
    }
    place.append(document.createTextNode("(the container has ended)\n"));
  } catch {
    place.append(document.createTextNode("(the connection was lost)\n"));
  }
}

if (place) follow();
