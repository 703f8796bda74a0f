<?php
// Two mails with Predis (composer require predis/predis): one composed by streamq from its parts, one whole message.
//   php predis.php [order.eml]
declare(strict_types=1);

// Composer's autoloader, or Debian's package php-predis.
require is_file(__DIR__ . '/vendor/autoload.php') ? __DIR__ . '/vendor/autoload.php' : 'Predis/autoload.php';

use Predis\Client;
use Predis\CommunicationException;

$redis = new Client(getenv('REDIS_URL') ?: 'redis://127.0.0.1:6379');

// XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same. What
// Redis refuses (OOM, NOAUTH, …) ends the program.
function send(Client $redis, string $stream, array $fields): string
{
    $command = ['XADD', $stream, '*'];
    foreach ($fields as $name => $value) {
        array_push($command, $name, $value);
    }
    for ($attempt = 1; ; $attempt++) {
        try {
            $reply = $redis->executeRaw($command, $refused);
            return $refused ? throw new RuntimeException("Redis refused it: $reply") : $reply;
        } catch (CommunicationException $lost) {
            if ($attempt === 4) {
                throw $lost;
            }
            $redis->disconnect();
            usleep(100_000 * $attempt);
        }
    }
}

echo send($redis, '{streamq}:normal', [
    'id' => 'order-18-receipt',
    'from' => 'Shop <shop@example.com>',
    'to' => 'Bob <bob@example.net>',
    'subject' => 'Your order № 18',
    'text' => 'Thank you, José.',
]), "\n";

echo send($redis, '{streamq}:normal', [
    'id' => 'order-18-invoice',
    'envelope_from' => 'bounces@example.com',
    'envelope_to' => 'bob@example.net',
    'raw' => file_get_contents($argv[1] ?? __DIR__ . '/../order.eml'),
]), "\n";
