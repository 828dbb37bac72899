CREATE TABLE history (
    id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT, event TEXT, created_at DATETIME,
    updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT
);
CREATE TABLE messages (id TEXT PRIMARY KEY, session_scope TEXT, role TEXT, content TEXT, name TEXT, created_at DATETIME);
INSERT INTO history VALUES
    ('h1', 'f0a1', NULL, 'Likes tea', 'ADD', '2025-01-10T08:00:00.000000-08:00', NULL, 0, 'alice', 'user'),
    ('h2', 'f0a2', NULL, 'Has a dog', 'ADD', '2025-01-11T08:00:00-08:00', NULL, 0, NULL, NULL),
    ('h3', 'f0a1', 'Likes tea', 'Likes green tea', 'UPDATE', '2025-01-10T08:00:00-08:00', '2025-02-01T09:30:00-08:00', 0, 'alice', 'user'),
    ('h4', 'f0a2', 'Has a dog', NULL, 'DELETE', NULL, '2025-02-02T08:00:00-08:00', 1, NULL, NULL),
    ('h5', 'f0a3', NULL, NULL, 'ADD', NULL, NULL, 0, NULL, NULL),
    ('h6', 'f0a4', NULL, 'Works from home', 'ADD', NULL, NULL, 0, NULL, NULL);
INSERT INTO messages VALUES ('m1', 'user_id=alice', 'user', 'Hi', NULL, '2025-02-01T09:30:00+00:00');
