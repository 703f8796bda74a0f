// Two mails with redigo (github.com/gomodule/redigo): one composed by streamq from its parts, one whole message.
//
//	go run send.go [order.eml]
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/gomodule/redigo/redis"
)

var pool = &redis.Pool{
	MaxIdle: 4,
	Dial: func() (redis.Conn, error) {
		url := os.Getenv("REDIS_URL")
		if url == "" {
			url = "redis://127.0.0.1:6379"
		}
		return redis.DialURL(url, redis.DialConnectTimeout(10*time.Second), redis.DialReadTimeout(10*time.Second))
	},
}

// send XADDs until it is known to be done: a lost reply is no reason for a second mail, since the id is the same.
func send(stream string, fields ...interface{}) (entry string, err error) {
	command := append([]interface{}{stream, "*"}, fields...)
	for attempt := 1; attempt <= 4; attempt++ {
		conn := pool.Get() // of a broken connection a new one is made
		entry, err = redis.String(conn.Do("XADD", command...))
		conn.Close()
		var refused redis.Error // OOM, NOAUTH, …
		if err == nil || errors.As(err, &refused) {
			return entry, err
		}
		time.Sleep(time.Duration(attempt) * 100 * time.Millisecond)
	}
	return "", fmt.Errorf("the mail may be queued; run this again: %w", err)
}

func main() {
	entry, err := send("{streamq}:normal",
		"id", "order-18-receipt",
		"from", "Shop <shop@example.com>",
		"to", "Bob <bob@example.net>",
		"subject", "Your order № 18",
		"text", "Thank you, José.")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry)

	file := "../order.eml"
	if len(os.Args) > 1 {
		file = os.Args[1]
	}
	message, err := os.ReadFile(file) // []byte, as it is
	if err != nil {
		log.Fatal(err)
	}
	entry, err = send("{streamq}:normal",
		"id", "order-18-invoice",
		"envelope_from", "bounces@example.com",
		"envelope_to", "bob@example.net",
		"raw", message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(entry)
}
