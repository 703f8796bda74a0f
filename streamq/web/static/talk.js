// The wire: looks, orders, and the stream. The token is sent by this script alone; no cookie carries it.

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
  } catch (wrong) {
    token = before;
    throw wrong;
  }
}

export function forget() {
  token = "";
  sessionStorage.removeItem("streamq-token");
}

// Server-sent events by fetch, since an EventSource cannot send the token. Goes on for ever.
export async function follow(heard, lost, path = "/api/stream") {
  for (;;) {
    try {
      const answer = await fetch(path, { headers: headers() });
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
      lost(wrong instanceof Refused ? wrong.message : "no connection to the server", wrong.status);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
