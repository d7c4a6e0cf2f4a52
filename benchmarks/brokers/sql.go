package main

import (
	"database/sql"
	"net/url"
	"strings"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	_ "github.com/go-sql-driver/mysql" // mysql
	_ "github.com/jackc/pgx/v5/stdlib" // pgx

	_ "github.com/millrace-go/millrace/eventbus/sqlbus" // postgres:, mysql: and sqlite: URLs
)

func postgres(raw string, n int) error {
	db, err := sql.Open("pgx", raw)
	if err != nil {
		return err
	}
	defer db.Close()
	return database("PostgreSQL", raw, db, wmsql.DefaultPostgreSQLSchema{GeneratePayloadType: func(string) string { return "BYTEA" }}, wmsql.DefaultPostgreSQLOffsetsAdapter{}, n)
}

func mysql(raw string, n int) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	db, err := sql.Open("mysql", u.User.String()+"@tcp("+u.Host+")"+u.Path+"?parseTime=true")
	if err != nil {
		return err
	}
	defer db.Close()
	return database("MariaDB", raw, db, wmsql.DefaultMySQLSchema{GeneratePayloadType: func(string) string { return "LONGBLOB" }}, wmsql.DefaultMySQLOffsetsAdapter{}, n)
}

// database compares with Watermill's adapter, for there is no raw client of a
// bus on a database.
func database(name, url string, db *sql.DB, schema wmsql.SchemaAdapter, offsets wmsql.OffsetsAdapter, n int) error {
	ours := millrace(url)
	theirs := watermill("watermill-sql",
		func() (message.Publisher, error) {
			p, err := wmsql.NewPublisher(db, wmsql.PublisherConfig{SchemaAdapter: schema, AutoInitializeSchema: true}, wm.NopLogger{})
			return p, err
		},
		func(group string) (message.Subscriber, error) {
			s, err := wmsql.NewSubscriber(db, wmsql.SubscriberConfig{ConsumerGroup: group, SchemaAdapter: schema, OffsetsAdapter: offsets, InitializeSchema: true, PollInterval: 10 * time.Millisecond}, wm.NopLogger{})
			return s, err
		})
	theirs.name += ", polling every 10 ms"
	topic := func() string { return strings.ReplaceAll(newName("sql"), "-", "_") }
	const many, few = 10_000, 500
	return tables(n, []table{
		{name + ": publish in batches of 100", []variant{
			{theirs.name, publishing(theirs, topic, many, 100, 1)},
			{ours.name, publishing(ours, topic, many, 100, 1)},
		}},
		{name + ": publish one by one, 1 caller", []variant{
			{theirs.name, publishing(theirs, topic, few, 1, 1)},
			{ours.name, publishing(ours, topic, few, 1, 1)},
		}},
		{name + ": publish one by one, 64 callers", []variant{
			{theirs.name, publishing(theirs, topic, few*4, 1, 64)},
			{ours.name, publishing(ours, topic, many, 1, 64)},
		}},
		{name + ": consume, handler does nothing", []variant{
			{theirs.name, consuming(theirs, theirs, topic, few*2, 1, 0)},
			{ours.name, consuming(ours, ours, topic, many, 16, 0)},
		}},
		{name + ": consume, handler takes 1 ms, 64 keys", []variant{
			{theirs.name, consuming(theirs, theirs, topic, few, 1, time.Millisecond)},
			{ours.name + ", Concurrency 64", consuming(ours, ours, topic, many, 64, time.Millisecond)},
		}},
		{name + ": from publish to handler", []variant{
			{theirs.name, latency(theirs, topic, 200)},
			{ours.name, latency(ours, topic, 200)},
		}},
	})
}
