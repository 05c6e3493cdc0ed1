"use strict";
// Appends the lines of a running build's log to the page as they come. Text only: a log is hostile.
(async () => {
  const place = document.getElementById("live-log");
  if (!place) return;
  const most = 500000;
  try {
    const answer = await fetch(place.dataset.url, { credentials: "same-origin" });
    if (!answer.ok || !answer.body) {
      place.textContent = answer.status === 404 ? "No log yet." : "The log cannot be read now.";
      return;
    }
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
})();
