CREATE TABLE store (
    prefix text NOT NULL, key text NOT NULL, value text NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP, ttl_minutes REAL, PRIMARY KEY (prefix, key)
);
CREATE TABLE store_vectors (
    prefix text NOT NULL, key text NOT NULL, field_name text NOT NULL, embedding BLOB,
    PRIMARY KEY (prefix, key, field_name)
);
INSERT INTO store VALUES
    ('users.alice', 'food', '{"likes": ["pizza"], "n": 3}', '2025-03-01 12:00:00', '2025-03-02 13:00:00', NULL, NULL),
    ('users.alice', 'soon', '{"text": "stays"}', '2025-03-01 12:00:00', '2025-03-01 12:00:00', '2999-01-01 00:00:00+00:00', 1e9),
    ('users.bob', 'gone', '{"text": "has expired"}', '2025-03-01 12:00:00', '2025-03-01 12:00:00', '2025-03-01 13:00:00', 60.0),
    ('users.bob', 'broken', '{"text": ', '2025-03-01 12:00:00', '2025-03-01 12:00:00', NULL, NULL),
    ('users.bob', 'list', '[1]', '2025-03-01 12:00:00', '2025-03-01 12:00:00', NULL, NULL);
INSERT INTO store_vectors VALUES ('users.alice', 'food', 'text', x'00');
