// Two mails with ioredis (npm install ioredis): one composed by streamq from its parts, one whole message.
//   node ioredis.mjs [order.eml]
import { readFile } from "node:fs/promises";
import { Redis } from "ioredis";

// ioredis reconnects and sends again what was not answered (autoResendUnfulfilledCommands, maxRetriesPerRequest): so
// each XADD may be carried out more than once, and the id makes that one mail.
const redis = new Redis(process.env.REDIS_URL ?? "redis://127.0.0.1:6379", { maxRetriesPerRequest: 4 });
redis.on("error", (error) => console.error(error.message));

function send(stream, fields) {
  return redis.xadd(stream, "*", ...Object.entries(fields).flat());
}

try {
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
} finally {
  redis.disconnect();
}
