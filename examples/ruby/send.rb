# Two mails with redis-rb (gem install redis): one composed by streamq from its parts, one whole message.
#   ruby send.rb [order.eml]
require "redis"

# No reconnecting behind our back: the loop below does it, and can say so.
REDIS = Redis.new(url: ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379"), reconnect_attempts: 0)

# XADD until it is known to be done: a lost reply is no reason for a second mail, since the id is the same.
# Redis::CommandError (OOM, NOAUTH, …) ends the program.
def send_mail(stream, fields)
  attempt = 1
  begin
    REDIS.xadd(stream, fields)
  rescue Redis::BaseConnectionError
    raise if attempt == 4
    sleep 0.1 * attempt
    attempt += 1
    retry
  end
end

puts send_mail("{streamq}:normal", {
  "id" => "order-18-receipt",
  "from" => "Shop <shop@example.com>",
  "to" => "Bob <bob@example.net>",
  "subject" => "Your order № 18",
  "text" => "Thank you, José."
})

puts send_mail("{streamq}:normal", {
  "id" => "order-18-invoice",
  "envelope_from" => "bounces@example.com",
  "envelope_to" => "bob@example.net",
  "raw" => File.binread(ARGV[0] || File.join(__dir__, "..", "order.eml"))
})
