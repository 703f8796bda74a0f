/* Two mails with hiredis: one composed by streamq from its parts, one whole message.
 *
 *   cc -o send send.c -lhiredis && ./send [order.eml]
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static redisContext *connect_redis(void)
{
    const char *url = getenv("REDIS_URL");
    char host[256] = "127.0.0.1";
    int port = 6379;
    struct timeval ten = {10, 0};
    redisContext *redis;

    if (url != NULL)
        sscanf(url, "redis://%255[^:/]:%d", host, &port);
    redis = redisConnectWithTimeout(host, port, ten);
    if (redis != NULL && redis->err == 0) {
        redisSetTimeout(redis, ten); /* for a reply */
        return redis;
    }
    if (redis != NULL)
        redisFree(redis);
    return NULL;
}

/* XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same. Values are
 * counted, not ended by a NUL. Returns 0, or -1 with a word on standard error. */
static int send_mail(int argc, const char **argv, const size_t *lengths)
{
    static redisContext *redis;

    for (int attempt = 1; attempt <= 4; attempt++) {
        struct timespec pause = {0, attempt * 100000000L};
        redisReply *reply = NULL;

        if (redis != NULL || (redis = connect_redis()) != NULL)
            reply = redisCommandArgv(redis, argc, argv, lengths);
        if (reply != NULL) {
            int good = reply->type == REDIS_REPLY_STRING;
            fprintf(good ? stdout : stderr, "%s\n", reply->str);
            freeReplyObject(reply);
            return good ? 0 : -1; /* else Redis refused it: OOM, NOAUTH, ... */
        }
        if (redis != NULL)
            redisFree(redis); /* a context with an error is of no more use */
        redis = NULL;
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "no reply from Redis: the mail may be queued; run this again\n");
    return -1;
}

int main(int argc, char **argv)
{
    const char *receipt[] = {
        "XADD", "{streamq}:normal", "*",
        "id", "order-18-receipt",
        "from", "Shop <shop@example.com>",
        "to", "Bob <bob@example.net>",
        "subject", "Your order \xe2\x84\x96 18", /* UTF-8 */
        "text", "Thank you, Jos\xc3\xa9.",
    };
    const char *invoice[] = {
        "XADD", "{streamq}:normal", "*",
        "id", "order-18-invoice",
        "envelope_from", "bounces@example.com",
        "envelope_to", "bob@example.net",
        "raw", NULL,
    };
    enum { INVOICE = sizeof invoice / sizeof *invoice };
    static char message[1 << 20];
    size_t lengths[INVOICE];
    FILE *file = fopen(argc > 1 ? argv[1] : "../order.eml", "rb");

    if (file == NULL) {
        perror("order.eml");
        return 1;
    }
    lengths[INVOICE - 1] = fread(message, 1, sizeof message, file);
    if (!feof(file)) {
        fprintf(stderr, "order.eml: cannot be read, or is over a megabyte\n");
        return 1;
    }
    fclose(file);
    invoice[INVOICE - 1] = message;
    for (int at = 0; at < INVOICE - 1; at++)
        lengths[at] = strlen(invoice[at]);

    if (send_mail(sizeof receipt / sizeof *receipt, receipt, NULL) != 0)
        return 1;
    return send_mail(INVOICE, invoice, lengths) != 0;
}
