// Two mails without a library: one composed by streamq from its parts, one whole message. RESP, which Redis speaks, is
// a count, and for each part its length in octets and its octets.
//
//   java Send.java [order.eml]

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;

import static java.nio.charset.StandardCharsets.UTF_8;

public class Send {
    private static final int TIMEOUT_MS = 10_000;

    private Socket socket;
    private InputStream replies;

    public static void main(String[] args) throws Exception {
        Send redis = new Send();
        System.out.println(redis.send("XADD", "{streamq}:normal", "*",
            "id", "order-18-receipt",
            "from", "Shop <shop@example.com>",
            "to", "Bob <bob@example.net>",
            "subject", "Your order \u2116 18",
            "text", "Thank you, Jos\u00e9."));
        byte[] message = Files.readAllBytes(Path.of(args.length > 0 ? args[0] : "../order.eml"));
        System.out.println(redis.send("XADD", "{streamq}:normal", "*",
            "id", "order-18-invoice",
            "envelope_from", "bounces@example.com",
            "envelope_to", "bob@example.net",
            "raw", message));
    }

    /** Sends until it is known to be done: a lost reply is no reason for a second mail, since the id is the same. */
    private String send(Object... parts) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                connect();
                socket.getOutputStream().write(packed(parts));
                return reply();
            } catch (IOException lost) {
                if (socket != null) {
                    socket.close();
                }
                socket = null;
                if (attempt == 4) {
                    throw new IOException("the mail may be queued; run this again", lost);
                }
                Thread.sleep(100L * attempt);
            }
        }
    }

    private void connect() throws IOException {
        if (socket != null) {
            return;
        }
        URI url = URI.create(System.getenv().getOrDefault("REDIS_URL", "redis://127.0.0.1:6379"));
        socket = new Socket();
        socket.setSoTimeout(TIMEOUT_MS);
        socket.connect(new InetSocketAddress(url.getHost(), url.getPort() < 0 ? 6379 : url.getPort()), TIMEOUT_MS);
        replies = new BufferedInputStream(socket.getInputStream());
    }

    private static byte[] packed(Object... parts) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(("*" + parts.length + "\r\n").getBytes(UTF_8));
        for (Object part : parts) {
            byte[] value = part instanceof byte[] ? (byte[]) part : part.toString().getBytes(UTF_8);
            out.write(("$" + value.length + "\r\n").getBytes(UTF_8));
            out.write(value);
            out.write("\r\n".getBytes(UTF_8));
        }
        return out.toByteArray();
    }

    /** Of XADD: `$15`, and then the entry; `-OOM ...` is an error. */
    private String reply() throws IOException {
        String first = line();
        if (first.startsWith("-")) {
            throw new IllegalStateException("Redis refused it: " + first.substring(1));
        }
        return first.startsWith("$") ? line() : first;
    }

    private String line() throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int octet; (octet = replies.read()) != '\n'; ) {
            if (octet < 0) {
                throw new IOException("the connection was closed");
            }
            if (octet != '\r') {
                out.write(octet);
            }
        }
        return out.toString(UTF_8);
    }
}
