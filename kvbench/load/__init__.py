"""Load drivers: each takes `records.Request`s, drives an endpoint and returns `records.Response`s."""
