// The wire: looks, orders, and the stream, of which all tabs have one. The token is sent by this script alone; no cookie carries it.

let token = sessionStorage.getItem("streamq-token") || "";
export const hasToken = () => token !== "";

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function read(answer) {
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, said.error || `status ${answer.status}`);
  return said;
}

export const look = async (path) => read(await fetch(path, { headers: headers() }));

export async function change(method, path, what) {
  return read(await fetch(path, { method, headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(what) }));
}

export const order = (what) => change("POST", "/api/order", what);

export async function text(path) {
  const answer = await fetch(path, { headers: headers() });
  return answer.ok ? answer.text() : read(answer);
}

export async function unlock(given) {
  const before = token;
  token = given;
  try {
    await change("POST", "/api/token", {});
    sessionStorage.setItem("streamq-token", token);
    anew();
  } catch (wrong) {
    token = before;
    throw wrong;
  }
}

export function forget() {
  token = "";
  sessionStorage.removeItem("streamq-token");
  anew();
}

// One stream of server-sent events, by fetch, since an EventSource cannot send the token; till `signal` aborts it.
async function listen(path, signal, heard, lost) {
  while (!signal.aborted) {
    try {
      const answer = await fetch(path, { headers: headers(), signal });
      if (!answer.ok) await read(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const kind = /^event: (.*)$/m.exec(part);
          const data = /^data: (.*)$/m.exec(part);
          if (kind && data) heard(kind[1], JSON.parse(data[1]));
        }
      }
      lost("the server has ended");
    } catch (wrong) {
      if (signal.aborted) return;
      lost(wrong instanceof Refused ? wrong.message : "no connection to the server", wrong.status);
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 2000);
      signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
    });
  }
}

// Goes on for ever. A browser has six connections to a server over HTTP/1.1, which all its tabs share: with a stream each
// the seventh tab, and every click, would wait for ever. So one tab has the stream and tells the others. It holds a lock,
// which the browser hands on when that tab is closed or dead; hidden, where a browser may put it to sleep, it stands in
// line for it anew, behind those that are looked at. (To end the stream of whoever is hidden would do, too, but what
// tabs say in their titles would be of then.) Locks need https, or loopback: elsewhere who is hidden has no stream.
let over = new AbortController();

function anew() { // another token: others may be told other things
  over.abort();
  over = new AbortController();
}

export async function follow(heard, lost, path = "/api/stream") {
  for (;;) await (navigator.locks ? shared : alone)(path, over.signal, heard, lost);
}

const shown = () => document.visibilityState !== "hidden";
const within = (signal, made = new AbortController()) => { signal.addEventListener("abort", () => made.abort(), { once: true }); return made; };
const moved = (signal) => new Promise((resolve) => {
  signal.addEventListener("abort", resolve, { once: true });
  document.addEventListener("visibilitychange", resolve, { once: true, signal });
});

async function alone(path, signal, heard, lost) {
  while (!signal.aborted) {
    const stream = within(signal);
    const ends = moved(stream.signal);
    if (shown()) {
      ends.then(() => stream.abort());
      await listen(path, stream.signal, heard, lost);
    }
    await ends;
  }
}

async function shared(path, signal, heard, lost) {
  const name = `streamq ${path} ${await digest(token)}`;
  const channel = new BroadcastChannel(name);
  let stream = null; // where this tab has it
  let last = null;
  const tell = (said) => { last = said; channel.postMessage(said); };
  channel.onmessage = ({ data: said }) => {
    if (said.lost) lost(...said.lost);
    else if (said.heard) heard(...said.heard);
    else {
      if (last) channel.postMessage(last); // who asks has just come
      if (!shown()) stream?.abort();
    }
  };
  document.addEventListener("visibilitychange", () => (shown() ? channel.postMessage({}) : stream?.abort()), { signal });
  channel.postMessage({});
  while (!signal.aborted) {
    await navigator.locks.request(name, { signal }, async () => {
      stream = within(signal);
      await listen(path, stream.signal,
        (...said) => { tell({ heard: said }); heard(...said); },
        (...said) => { tell({ lost: said }); lost(...said); });
      stream = last = null;
    }).catch((wrong) => { if (wrong.name !== "AbortError") throw wrong; });
  }
  channel.close();
}

async function digest(text) {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(bytes)].map((each) => each.toString(16).padStart(2, "0")).join("");
}
