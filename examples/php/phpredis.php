<?php
// Two mails with phpredis (the extension `redis`): one composed by streamq from its parts, one whole message.
//   php phpredis.php [order.eml]
declare(strict_types=1);

$url = parse_url(getenv('REDIS_URL') ?: 'redis://127.0.0.1:6379');

// XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same.
function send(string $stream, array $fields): string
{
    global $url;
    static $redis = null;
    $redis ??= new Redis();
    for ($attempt = 1; ; $attempt++) {
        try {
            if (!$redis->isConnected()) {
                $redis->connect($url['host'], $url['port'] ?? 6379, 10.0);
                $redis->setOption(Redis::OPT_MAX_RETRIES, 0); // this loop does it
            }
            $redis->clearLastError();
            $entry = $redis->xAdd($stream, '*', $fields);
            return is_string($entry) ? $entry : throw new RuntimeException((string) $redis->getLastError());
        } catch (RedisException $lost) {
            // Some of Redis's errors are thrown, too: they begin with a code (OOM, NOAUTH, …).
            if ($attempt === 4 || preg_match('/^[A-Z]{2,} /', $lost->getMessage())) {
                throw $lost;
            }
            $redis->close();
            usleep(100_000 * $attempt);
        }
    }
}

echo send('{streamq}:normal', [
    'id' => 'order-18-receipt',
    'from' => 'Shop <shop@example.com>',
    'to' => 'Bob <bob@example.net>',
    'subject' => 'Your order № 18',
    'text' => 'Thank you, José.',
]), "\n";

echo send('{streamq}:normal', [
    'id' => 'order-18-invoice',
    'envelope_from' => 'bounces@example.com',
    'envelope_to' => 'bob@example.net',
    'raw' => file_get_contents($argv[1] ?? __DIR__ . '/../order.eml'),
]), "\n";
