"use strict";
// Appends the lines of a running build's log to the page as they come. Text only: a log is hostile.
const place = document.getElementById("live-log");
const most = 500000;
const pause = 3000; // milliseconds until somebody asks whether the build goes on in another container
const mostPauses = 5;
let shown = ""; // the pod and the container whose log was shown last
let pauses = 0;

function write(text) {
  place.append(document.createTextNode(text));
  if (place.textContent.length > most) place.textContent = place.textContent.slice(-most / 2);
}

async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    write(value);
  }
}

function later(seconds) {
  setTimeout(follow, 1000 * Number(seconds || 5));
}

async function follow() {
  try {
    const answer = await fetch(place.dataset.url, { credentials: "same-origin" });
    if (answer.status === 204) {
      if (!shown) place.textContent = "No log yet. The page looks again every few seconds.";
      later(answer.headers.get("Retry-After"));
      return;
    }
    if (answer.status === 503) {
      if (!shown) place.textContent = "As many logs as can be are being followed. The page asks again.";
      later(answer.headers.get("Retry-After"));
      return;
    }
    if (!answer.ok || !answer.body) {
      write("(the log cannot be read now)\n");
      return;
    }
    const from = `${answer.headers.get("X-Kaniko-Container")} of ${answer.headers.get("X-Kaniko-Pod")}`;
    if (from === shown) {
      await answer.body.cancel();
      pauses += 1;
    } else {
      if (!shown) place.textContent = "";
      shown = from;
      pauses = 0;
      write(`--- ${from} ---\n`);
      await read(answer.body);
    }
    // A build goes on in the next container, and after an eviction in the next pod.
    if (pauses < mostPauses) setTimeout(follow, pause);
    else write("(no more lines come; load the page again to see how it stands)\n");
  } catch {
    write("(the connection was lost; load the page again to go on)\n");
  }
}

if (place) follow();
