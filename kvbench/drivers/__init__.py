"""Load drivers: each takes `records.Request`s, sends them to an endpoint and returns `records.Response`s."""
