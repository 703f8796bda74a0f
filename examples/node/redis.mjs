// Two mails with node-redis (npm install redis): one composed by streamq from its parts, one whole message.
//   node redis.mjs [order.eml]
import { readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { createClient, ErrorReply } from "redis";

const client = createClient({ url: process.env.REDIS_URL ?? "redis://127.0.0.1:6379" });
client.on("error", () => {}); // it reconnects by itself; the command that was under way is rejected below
await client.connect();

// XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same.
async function send(stream, fields) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await client.xAdd(stream, "*", fields);
    } catch (error) {
      if (error instanceof ErrorReply || attempt === 4) throw error; // Redis said no, or was silent too often
      await pause(100 * attempt);
    }
  }
}

console.log(
  await send("{streamq}:normal", {
    id: "order-18-receipt",
    from: "Shop <shop@example.com>",
    to: "Bob <bob@example.net>",
    subject: "Your order № 18",
    text: "Thank you, José.",
  }),
);
console.log(
  await send("{streamq}:normal", {
    id: "order-18-invoice",
    envelope_from: "bounces@example.com",
    envelope_to: "bob@example.net",
    raw: await readFile(process.argv[2] ?? new URL("../order.eml", import.meta.url)), // a Buffer, never a string
  }),
);
await client.close();
