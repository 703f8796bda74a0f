#!/usr/bin/perl
# Two mails with Redis.pm (cpan Redis): one composed by streamq from its parts, one whole message.
#   perl send.pl [order.eml]
use v5.26;
use warnings;
use utf8;
use Encode 'encode';
use FindBin;
use Redis;

my ($server) = ($ENV{REDIS_URL} // 'redis://127.0.0.1:6379') =~ m{^redis://([^/?]+)};
my $redis;

# XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same. Values are
# octets: text is encoded, a message is what was read.
sub send_mail {
    my ($stream, @fields) = @_;
    for my $attempt (1 .. 4) {
        my $entry = eval {
            $redis //= Redis->new(server => $server);
            $redis->xadd($stream, '*', @fields);
        };
        return $entry if defined $entry;
        die $@ if $@ =~ /^\[xadd\]/;    # Redis refused it: OOM, NOAUTH, …
        warn $@;
        undef $redis;
        select undef, undef, undef, 0.1 * $attempt;
    }
    die "no reply from Redis: the mail may be queued; run this again\n";
}

say send_mail('{streamq}:normal',
    id      => 'order-18-receipt',
    from    => 'Shop <shop@example.com>',
    to      => 'Bob <bob@example.net>',
    subject => encode('UTF-8', 'Your order № 18'),
    text    => encode('UTF-8', 'Thank you, José.'),
);

my $file = shift // "$FindBin::Bin/../order.eml";
open my $in, '<:raw', $file or die "$file: $!\n";
my $message = do { local $/; <$in> };

say send_mail('{streamq}:normal',
    id            => 'order-18-invoice',
    envelope_from => 'bounces@example.com',
    envelope_to   => 'bob@example.net',
    raw           => $message,
);
