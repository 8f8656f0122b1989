#include "store/migrations.h"

#include <array>
#include <string>

#include "base/error.h"
#include "base/version.h"
#include "store/database.h"
#include "store/statement.h"
#include "store/transaction.h"

namespace fusion {
namespace {

// The comments stay in the file: `.schema` in the sqlite3 shell shows them.
constexpr std::string_view kSchema1 = R"sql(
CREATE TABLE meta (                -- facts of this file
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE studies (             -- one search each
  id             INTEGER PRIMARY KEY,
  name           TEXT    NOT NULL,
  state          TEXT    NOT NULL CHECK (state IN ('running', 'paused', 'completed', 'failed', 'cancelled')),
  error          TEXT    NOT NULL DEFAULT '',   -- why it is failed, or paused by the daemon
  priority       INTEGER NOT NULL,
  retries        INTEGER NOT NULL CHECK (retries >= 0),
  seed           TEXT    NOT NULL,              -- decimal digits: any unsigned 64-bit integer
  strategy       TEXT    NOT NULL,              -- its name; options are in spec
  dataset        TEXT    NOT NULL,              -- its name
  dataset_digest TEXT    NOT NULL,              -- SHA-256 of the feature manifest
  dataset_path   TEXT    NOT NULL,              -- the feature manifest, absolute
  spec           TEXT    NOT NULL CHECK (json_valid(spec)),          -- every option, defaults filled in
  dataset_spec   TEXT    NOT NULL CHECK (json_valid(dataset_spec)),  -- modalities, taps, classes, rows
  created_ms     INTEGER NOT NULL,
  updated_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE workers (             -- one row for each connection of a worker
  id            INTEGER PRIMARY KEY,
  name          TEXT    NOT NULL,
  host          TEXT    NOT NULL,
  pid           INTEGER NOT NULL,
  device        TEXT    NOT NULL,
  slots         INTEGER NOT NULL,
  code_version  TEXT    NOT NULL,
  torch_version TEXT    NOT NULL,
  joined_ms     INTEGER NOT NULL,
  left_ms       INTEGER,                        -- NULL while connected
  left_reason   TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX workers_connected ON workers (id) WHERE left_ms IS NULL;

CREATE TABLE trials (              -- one architecture to score
  id             INTEGER PRIMARY KEY,
  study_id       INTEGER NOT NULL REFERENCES studies (id),
  ask_index      INTEGER NOT NULL CHECK (ask_index >= 0),   -- place in the order of proposals, from 0
  told_index     INTEGER CHECK (told_index >= 0),           -- place in the order of ends, from 0; NULL while not final
  architecture   TEXT    NOT NULL,                          -- triplets, first step first: [[3,2,0],[1,1,1]]
  steps          INTEGER NOT NULL CHECK (steps >= 1),
  replica        INTEGER NOT NULL CHECK (replica >= 0),     -- 0 for the first training of an architecture
  seed           INTEGER NOT NULL,
  state          TEXT    NOT NULL CHECK (state IN ('queued', 'leased', 'completed', 'failed', 'cancelled')),
  attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- begun so far
  failures       INTEGER NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),  -- ended failed or oom
  scored_attempt INTEGER,                                   -- which attempt gave the score
  dev_score      REAL CHECK (dev_score BETWEEN 0 AND 1),    -- the study's metric on dev, best epoch
  test_score     REAL,                                      -- the same on test, with evaluate_test only
  best_epoch     INTEGER,                                   -- from 1; 0 if no epoch beat a score of 0
  dev_accuracy   REAL,
  dev_weighted_f1 REAL,
  dev_macro_f1   REAL,
  train_loss     REAL,                                      -- mean over the last epoch; NULL if it was not a number
  train_s        REAL,                                      -- seconds the worker spent
  parameters     INTEGER,                                   -- weights that were trained
  error          TEXT    NOT NULL DEFAULT '',               -- of the last attempt that failed
  facts          TEXT    NOT NULL CHECK (json_valid(facts)),  -- what the strategy noted with the proposal
  created_ms     INTEGER NOT NULL,
  updated_ms     INTEGER NOT NULL,
  ended_ms       INTEGER,                                   -- NULL while not final
  UNIQUE (study_id, ask_index),
  UNIQUE (study_id, architecture, replica),
  FOREIGN KEY (id, scored_attempt) REFERENCES attempts (trial_id, attempt),
  CHECK ((told_index IS NULL) = (state IN ('queued', 'leased'))),
  CHECK ((ended_ms IS NULL) = (told_index IS NULL)),
  CHECK ((dev_score IS NULL) = (state <> 'completed')),
  CHECK ((scored_attempt IS NULL) = (dev_score IS NULL))
) STRICT;
CREATE UNIQUE INDEX trials_told ON trials (study_id, told_index) WHERE told_index IS NOT NULL;
CREATE INDEX trials_ended  ON trials (study_id, ended_ms) WHERE ended_ms IS NOT NULL;
CREATE INDEX trials_state  ON trials (study_id, state, ask_index);
CREATE INDEX trials_best   ON trials (study_id, dev_score DESC, ask_index) WHERE dev_score IS NOT NULL;
CREATE INDEX trials_leased ON trials (id) WHERE state = 'leased';
CREATE TRIGGER trials_final BEFORE UPDATE ON trials WHEN OLD.told_index IS NOT NULL
BEGIN
  SELECT RAISE (ABORT, 'a trial that ended never changes');
END;

CREATE TABLE attempts (            -- each time a trial was leased to a worker
  trial_id      INTEGER NOT NULL REFERENCES trials (id),
  attempt       INTEGER NOT NULL CHECK (attempt >= 1),
  worker_id     INTEGER REFERENCES workers (id),
  outcome       TEXT CHECK (outcome IN ('completed', 'pruned', 'failed', 'oom', 'preempted', 'lost', 'cancelled')),  -- NULL: open
  error         TEXT    NOT NULL DEFAULT '',
  engine        TEXT    NOT NULL DEFAULT '',
  device        TEXT    NOT NULL DEFAULT '',
  code_version  TEXT    NOT NULL DEFAULT '',
  torch_version TEXT    NOT NULL DEFAULT '',
  started_ms    INTEGER NOT NULL,
  ended_ms      INTEGER,
  PRIMARY KEY (trial_id, attempt),
  CHECK ((outcome IS NULL) = (ended_ms IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX attempts_open ON attempts (trial_id) WHERE outcome IS NULL;
CREATE INDEX attempts_held ON attempts (worker_id, trial_id) WHERE outcome IS NULL;

CREATE TABLE epochs (              -- what an attempt reported after each pass over the train split
  trial_id      INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  epoch         INTEGER NOT NULL CHECK (epoch >= 1),
  train_loss    REAL,              -- NULL if it was not a number
  dev_score     REAL,
  learning_rate REAL,              -- after the epoch's last step
  seconds       REAL,
  at_ms         INTEGER NOT NULL,
  PRIMARY KEY (trial_id, attempt, epoch),
  FOREIGN KEY (trial_id, attempt) REFERENCES attempts (trial_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE surrogate_fits (      -- errors are taken before training on the new scores
  study_id         INTEGER NOT NULL REFERENCES studies (id),
  fit_index        INTEGER NOT NULL CHECK (fit_index >= 0),
  surrogate        TEXT    NOT NULL,
  observations     INTEGER NOT NULL,
  loss             REAL,
  rank_correlation REAL,           -- Spearman, predictions against scores
  mean_abs_error   REAL,
  seconds          REAL    NOT NULL,
  details          TEXT    NOT NULL CHECK (json_valid(details)),
  at_ms            INTEGER NOT NULL,
  PRIMARY KEY (study_id, fit_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (              -- what an operator would want to read later
  id        INTEGER PRIMARY KEY,
  at_ms     INTEGER NOT NULL,
  kind      TEXT    NOT NULL,
  study_id  INTEGER,               -- no foreign keys: a line of the log is never refused
  trial_id  INTEGER,
  worker_id INTEGER,
  text      TEXT    NOT NULL
) STRICT;
CREATE INDEX events_study ON events (study_id, id);

-- Views: for people. Scores are rounded to 4 digits, times are UTC text, best or first comes first.

CREATE VIEW leaderboard AS         -- completed trials, best first; rank counts within the study
SELECT s.name AS study, r.rank, round(t.dev_score, 4) AS dev_score, round(t.test_score, 4) AS test_score, t.steps,
       t.architecture, t.best_epoch, round(t.train_s, 2) AS train_s, t.parameters, t.id AS trial, t.replica, t.seed,
       round(t.dev_accuracy, 4) AS dev_accuracy, round(t.dev_weighted_f1, 4) AS dev_weighted_f1,
       round(t.dev_macro_f1, 4) AS dev_macro_f1, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, row_number() OVER (PARTITION BY study_id ORDER BY dev_score DESC, ask_index) AS rank
      FROM trials WHERE dev_score IS NOT NULL) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY t.dev_score DESC, t.study_id, r.rank;

CREATE VIEW history AS             -- trials in the order they ended, with the best score until then
SELECT s.name AS study, t.told_index, t.state, round(t.dev_score, 4) AS dev_score, round(r.best_so_far, 4) AS best_so_far,
       t.steps, t.architecture, round((t.ended_ms - s.created_ms) / 1000.0, 1) AS elapsed_s, round(t.train_s, 2) AS train_s,
       t.id AS trial, t.ask_index, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, study_id, told_index, max(dev_score) OVER (PARTITION BY study_id ORDER BY told_index) AS best_so_far
      FROM trials WHERE told_index IS NOT NULL) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY r.study_id, r.told_index;

CREATE VIEW study_progress AS      -- a row per study: how far it is
SELECT s.name AS study, s.state, s.strategy, s.dataset, count(t.id) AS asked,
       count(t.id) FILTER (WHERE t.state = 'queued') AS queued, count(t.id) FILTER (WHERE t.state = 'leased') AS leased,
       count(t.id) FILTER (WHERE t.state = 'completed') AS completed,
       count(t.id) FILTER (WHERE t.state = 'failed') AS failed,
       count(t.id) FILTER (WHERE t.state = 'cancelled') AS cancelled,
       round(max(t.dev_score), 4) AS best_dev_score, round(coalesce(sum(t.train_s), 0) / 3600, 3) AS train_h,
       datetime(s.created_ms / 1000, 'unixepoch') AS created, datetime(max(t.ended_ms) / 1000, 'unixepoch') AS last_ended,
       s.error, s.id AS study_id
FROM studies AS s LEFT JOIN trials AS t ON t.study_id = s.id
GROUP BY s.id ORDER BY s.id;

CREATE VIEW attempts_log AS        -- every attempt at every trial; outcome is 'running' while it is open
SELECT s.name AS study, a.trial_id AS trial, a.attempt, coalesce(a.outcome, 'running') AS outcome, t.state AS trial_state,
       w.name AS worker, w.host, a.error, a.engine, a.device, a.code_version, a.torch_version,
       datetime(a.started_ms / 1000, 'unixepoch') AS started, round((a.ended_ms - a.started_ms) / 1000.0, 2) AS seconds,
       t.architecture, t.study_id
FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id JOIN studies AS s ON s.id = t.study_id
LEFT JOIN workers AS w ON w.id = a.worker_id
ORDER BY a.trial_id, a.attempt;

CREATE VIEW failures AS            -- attempts that ended in an error or vanished, the latest first
SELECT s.name AS study, a.trial_id AS trial, a.attempt, a.outcome, t.state AS trial_state, a.error, w.name AS worker, w.host,
       a.device, datetime(a.ended_ms / 1000, 'unixepoch') AS ended, t.architecture, t.study_id
FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id JOIN studies AS s ON s.id = t.study_id
LEFT JOIN workers AS w ON w.id = a.worker_id
WHERE a.outcome IN ('failed', 'oom', 'lost')
ORDER BY a.ended_ms DESC, a.trial_id DESC, a.attempt DESC;

CREATE VIEW surrogate_quality AS   -- how good the predictions were that chose the trials
SELECT s.name AS study, f.fit_index, f.surrogate, f.observations, round(f.loss, 6) AS loss,
       round(f.rank_correlation, 4) AS rank_correlation, round(f.mean_abs_error, 4) AS mean_abs_error,
       round(f.seconds, 3) AS seconds, datetime(f.at_ms / 1000, 'unixepoch') AS at, f.study_id
FROM surrogate_fits AS f JOIN studies AS s ON s.id = f.study_id
ORDER BY f.study_id, f.fit_index;

CREATE VIEW epoch_curves AS        -- learning curves; counts is 1 for the attempt whose score stands
SELECT s.name AS study, e.trial_id AS trial, e.attempt, e.epoch, round(e.train_loss, 6) AS train_loss,
       round(e.dev_score, 4) AS dev_score, e.learning_rate, round(e.seconds, 3) AS seconds,
       e.attempt IS t.scored_attempt AS counts, t.architecture, t.study_id
FROM epochs AS e JOIN trials AS t ON t.id = e.trial_id JOIN studies AS s ON s.id = t.study_id
ORDER BY e.trial_id, e.attempt, e.epoch;
)sql";

// Early stopping: a trial that was ended early is completed, keeps the score of the epochs it had, and is marked.
constexpr std::string_view kSchema2 = R"sql(
ALTER TABLE trials ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0  -- 1: ended early, dev_score is of the epochs it had
  CHECK (pruned = 0 OR (pruned = 1 AND dev_score IS NOT NULL));
CREATE INDEX trials_pruned ON trials (study_id) WHERE pruned;
DROP VIEW leaderboard;
DROP VIEW history;
DROP VIEW study_progress;

CREATE VIEW leaderboard AS         -- trials that were trained to their end, best first; rank counts within the study
SELECT s.name AS study, r.rank, round(t.dev_score, 4) AS dev_score, round(t.test_score, 4) AS test_score, t.steps,
       t.architecture, t.best_epoch, round(t.train_s, 2) AS train_s, t.parameters, t.id AS trial, t.replica, t.seed,
       round(t.dev_accuracy, 4) AS dev_accuracy, round(t.dev_weighted_f1, 4) AS dev_weighted_f1,
       round(t.dev_macro_f1, 4) AS dev_macro_f1, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, row_number() OVER (PARTITION BY study_id ORDER BY dev_score DESC, ask_index) AS rank
      FROM trials WHERE dev_score IS NOT NULL AND NOT pruned) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY t.dev_score DESC, t.study_id, r.rank;

CREATE VIEW history AS             -- trials in the order they ended, with the best score until then (of those not pruned)
SELECT s.name AS study, t.told_index, t.state, t.pruned, round(t.dev_score, 4) AS dev_score,
       round(r.best_so_far, 4) AS best_so_far,
       t.steps, t.architecture, round((t.ended_ms - s.created_ms) / 1000.0, 1) AS elapsed_s, round(t.train_s, 2) AS train_s,
       t.id AS trial, t.ask_index, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, study_id, told_index,
             max(CASE WHEN NOT pruned THEN dev_score END) OVER (PARTITION BY study_id ORDER BY told_index) AS best_so_far
      FROM trials WHERE told_index IS NOT NULL) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY r.study_id, r.told_index;

CREATE VIEW study_progress AS      -- a row per study: how far it is
SELECT s.name AS study, s.state, s.strategy, s.dataset, count(t.id) AS asked,
       count(t.id) FILTER (WHERE t.state = 'queued') AS queued, count(t.id) FILTER (WHERE t.state = 'leased') AS leased,
       count(t.id) FILTER (WHERE t.state = 'completed') AS completed, count(t.id) FILTER (WHERE t.pruned) AS pruned,
       count(t.id) FILTER (WHERE t.state = 'failed') AS failed,
       count(t.id) FILTER (WHERE t.state = 'cancelled') AS cancelled,
       round(max(t.dev_score) FILTER (WHERE NOT t.pruned), 4) AS best_dev_score, round(coalesce(sum(t.train_s), 0) / 3600, 3) AS train_h,
       datetime(s.created_ms / 1000, 'unixepoch') AS created, datetime(max(t.ended_ms) / 1000, 'unixepoch') AS last_ended,
       s.error, s.id AS study_id
FROM studies AS s LEFT JOIN trials AS t ON t.study_id = s.id
GROUP BY s.id ORDER BY s.id;
)sql";

// Retrainings: found configurations trained again, with epochs and files of their own.
constexpr std::string_view kSchema3 = R"sql(
CREATE TABLE retrainings (         -- a found configuration trained again
  id             INTEGER PRIMARY KEY,
  study_id       INTEGER REFERENCES studies (id),           -- where it was found; NULL: it came with an exported file
  trial_id       INTEGER REFERENCES trials (id),            -- likewise
  origin         TEXT    NOT NULL CHECK (json_valid(origin)),  -- study and trial as they were then, or what the file said of them
  architecture   TEXT    NOT NULL,                          -- triplets, first step first
  steps          INTEGER NOT NULL CHECK (steps >= 1),
  dataset        TEXT    NOT NULL,                          -- its name
  dataset_digest TEXT    NOT NULL,                          -- SHA-256 of the feature manifest
  dataset_path   TEXT    NOT NULL,                          -- the feature manifest, absolute
  dataset_spec   TEXT    NOT NULL CHECK (json_valid(dataset_spec)),  -- modalities, taps, classes, rows
  head           TEXT    NOT NULL CHECK (head IN ('linear', 'mmtm', 'bert', 'mean', 'concatenation', 'lstm', 'nonlocal')),
  options        TEXT    NOT NULL CHECK (json_valid(options)),  -- every option, defaults filled in
  seed           INTEGER NOT NULL CHECK (seed BETWEEN 0 AND 9007199254740991),
  priority       INTEGER NOT NULL,
  retries        INTEGER NOT NULL CHECK (retries >= 0),
  state          TEXT    NOT NULL CHECK (state IN ('queued', 'leased', 'paused', 'completed', 'failed', 'cancelled')),
  attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- begun so far
  failures       INTEGER NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),  -- ended failed or oom
  scored_attempt INTEGER,                                   -- which attempt gave the score
  dev_score      REAL CHECK (dev_score BETWEEN 0 AND 1),    -- the metric on dev, best epoch
  test_score     REAL CHECK (test_score BETWEEN 0 AND 1),   -- looked at once, at the end; NULL without a test split
  best_epoch     INTEGER,                                   -- from 1, over both phases; 0 if no epoch beat a score of 0
  train_loss     REAL,                                      -- mean over the last epoch
  train_s        REAL,                                      -- over all attempts
  parameters     INTEGER,                                   -- of the whole model, backbones included
  trained_parameters INTEGER,
  batch          INTEGER,                                   -- rows at once that memory allowed
  evaluation     TEXT CHECK (evaluation IS NULL OR json_valid(evaluation)),  -- per split: accuracy, F1, confusion matrix, classes; latency
  error          TEXT    NOT NULL DEFAULT '',               -- of the last attempt that failed
  folder         TEXT    NOT NULL,                          -- absolute; checkpoint and artifacts
  created_ms     INTEGER NOT NULL,
  updated_ms     INTEGER NOT NULL,
  ended_ms       INTEGER,                                   -- NULL while not final
  FOREIGN KEY (id, scored_attempt) REFERENCES retraining_attempts (retraining_id, attempt),
  CHECK ((study_id IS NULL) = (trial_id IS NULL)),
  CHECK ((ended_ms IS NULL) = (state IN ('queued', 'leased', 'paused'))),
  CHECK ((dev_score IS NULL) = (state <> 'completed')),
  CHECK ((scored_attempt IS NULL) = (dev_score IS NULL)),
  CHECK ((evaluation IS NULL) = (dev_score IS NULL))
) STRICT;
CREATE INDEX retrainings_best  ON retrainings (dev_score DESC, id) WHERE dev_score IS NOT NULL;
CREATE INDEX retrainings_open  ON retrainings (id) WHERE ended_ms IS NULL;
CREATE INDEX retrainings_trial ON retrainings (trial_id);
CREATE TRIGGER retrainings_final BEFORE UPDATE ON retrainings WHEN OLD.ended_ms IS NOT NULL
BEGIN
  SELECT RAISE (ABORT, 'a retraining that ended never changes');
END;

CREATE TABLE retraining_attempts ( -- each time a retraining was leased to a worker
  retraining_id INTEGER NOT NULL REFERENCES retrainings (id),
  attempt       INTEGER NOT NULL CHECK (attempt >= 1),
  worker_id     INTEGER REFERENCES workers (id),
  outcome       TEXT CHECK (outcome IN ('completed', 'failed', 'oom', 'preempted', 'lost', 'cancelled')),  -- NULL: open
  error         TEXT    NOT NULL DEFAULT '',
  device        TEXT    NOT NULL DEFAULT '',
  code_version  TEXT    NOT NULL DEFAULT '',
  torch_version TEXT    NOT NULL DEFAULT '',
  started_ms    INTEGER NOT NULL,
  ended_ms      INTEGER,
  PRIMARY KEY (retraining_id, attempt),
  CHECK ((outcome IS NULL) = (ended_ms IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX retraining_attempts_open ON retraining_attempts (retraining_id) WHERE outcome IS NULL;

CREATE TABLE retraining_epochs (   -- what an attempt reported after each pass over the train split; a repeated epoch is of another attempt
  retraining_id INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  epoch         INTEGER NOT NULL CHECK (epoch >= 1),  -- over both phases
  phase         INTEGER NOT NULL CHECK (phase IN (1, 2)),  -- 1: fusion part only
  train_loss    REAL,
  dev_loss      REAL,
  dev_score     REAL,
  learning_rate REAL,              -- after the epoch's last step
  seconds       REAL,
  rows_per_s    REAL,
  at_ms         INTEGER NOT NULL,
  PRIMARY KEY (retraining_id, attempt, epoch),
  FOREIGN KEY (retraining_id, attempt) REFERENCES retraining_attempts (retraining_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (           -- files that a completed retraining made
  retraining_id INTEGER NOT NULL REFERENCES retrainings (id),
  name          TEXT    NOT NULL CHECK (name <> '' AND instr(name, '/') = 0),
  path          TEXT    NOT NULL,  -- absolute, as the worker wrote it
  bytes         INTEGER NOT NULL CHECK (bytes >= 0),
  sha256        TEXT    NOT NULL CHECK (length(sha256) = 64),
  PRIMARY KEY (retraining_id, name)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER artifacts_final BEFORE UPDATE ON artifacts
BEGIN
  SELECT RAISE (ABORT, 'an artifact never changes');
END;

ALTER TABLE events ADD COLUMN retraining_id INTEGER;

CREATE VIEW retrainings_board AS   -- the best first, then those without a score, the latest first
SELECT coalesce(s.name, json_extract(r.origin, '$.study.name'), '') AS study, r.trial_id AS trial, r.head, r.state,
       round(r.dev_score, 4) AS dev_score, round(r.test_score, 4) AS test_score, r.parameters, r.trained_parameters,
       (SELECT count(DISTINCT e.epoch) FROM retraining_epochs AS e WHERE e.retraining_id = r.id) AS epochs, r.best_epoch,
       round(r.train_s, 1) AS seconds, json_extract(r.options, '$.width') AS width, json_extract(r.options, '$.finetune') AS finetune,
       r.architecture, r.dataset, r.attempts, r.error, r.id AS retraining, datetime(r.created_ms / 1000, 'unixepoch') AS created,
       datetime(r.ended_ms / 1000, 'unixepoch') AS ended, r.study_id
FROM retrainings AS r LEFT JOIN studies AS s ON s.id = r.study_id
ORDER BY r.dev_score DESC NULLS LAST, CASE WHEN r.dev_score IS NULL THEN -r.id ELSE r.id END;

CREATE VIEW retraining_curves AS   -- learning curves; counts is 1 for the last attempt that trained the epoch
SELECT e.retraining_id AS retraining, r.head, e.attempt, e.epoch, e.phase, round(e.train_loss, 6) AS train_loss,
       round(e.dev_loss, 6) AS dev_loss, round(e.dev_score, 4) AS dev_score, e.learning_rate, round(e.seconds, 3) AS seconds,
       round(e.rows_per_s, 1) AS rows_per_s,
       NOT EXISTS (SELECT 1 FROM retraining_epochs AS later WHERE later.retraining_id = e.retraining_id AND later.epoch = e.epoch
                   AND later.attempt > e.attempt) AS counts
FROM retraining_epochs AS e JOIN retrainings AS r ON r.id = e.retraining_id
ORDER BY e.retraining_id, e.epoch, e.attempt;

CREATE VIEW retraining_attempts_log AS  -- every attempt at every retraining; outcome is 'running' while it is open
SELECT a.retraining_id AS retraining, r.head, a.attempt, coalesce(a.outcome, 'running') AS outcome, r.state AS retraining_state,
       w.name AS worker, w.host, a.error, a.device, a.code_version, a.torch_version,
       datetime(a.started_ms / 1000, 'unixepoch') AS started, round((a.ended_ms - a.started_ms) / 1000.0, 2) AS seconds
FROM retraining_attempts AS a JOIN retrainings AS r ON r.id = a.retraining_id LEFT JOIN workers AS w ON w.id = a.worker_id
ORDER BY a.retraining_id, a.attempt;
)sql";

// Outcomes counted per trial; poison trials; studies that are paused because they only fail.
constexpr std::string_view kSchema4 = R"sql(
ALTER TABLE studies ADD COLUMN retries_failed INTEGER NOT NULL DEFAULT 2 CHECK (retries_failed >= 0);  -- of retries, for failed
ALTER TABLE studies ADD COLUMN retries_oom    INTEGER NOT NULL DEFAULT 2 CHECK (retries_oom >= 0);     -- of retries, for oom
ALTER TABLE studies ADD COLUMN retries_lost   INTEGER NOT NULL DEFAULT 8 CHECK (retries_lost >= 0);    -- deaths of a trial that are forgiven
ALTER TABLE studies ADD COLUMN resumed_ms     INTEGER NOT NULL DEFAULT 0;  -- failures before are forgotten (pause_on)
UPDATE studies SET retries_failed = retries, retries_oom = retries;

ALTER TABLE attempts ADD COLUMN alone INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1));  -- 1: a pack of its own, on a worker that held nothing else
ALTER TABLE attempts ADD COLUMN died  INTEGER NOT NULL DEFAULT 0
  CHECK (died = 0 OR (died = 1 AND outcome = 'lost'));  -- 1: the worker died that had it in training
CREATE INDEX attempts_failed ON attempts (ended_ms) WHERE (outcome IN ('failed', 'oom') OR died);

ALTER TABLE trials ADD COLUMN failed    INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0);     -- attempts that ended failed
ALTER TABLE trials ADD COLUMN oom       INTEGER NOT NULL DEFAULT 0 CHECK (oom >= 0);        -- that ran out of memory
ALTER TABLE trials ADD COLUMN preempted INTEGER NOT NULL DEFAULT 0 CHECK (preempted >= 0);
ALTER TABLE trials ADD COLUMN lost      INTEGER NOT NULL DEFAULT 0 CHECK (lost >= 0);
ALTER TABLE trials ADD COLUMN deaths    INTEGER NOT NULL DEFAULT 0 CHECK (deaths BETWEEN 0 AND lost);  -- of lost: died AND alone
ALTER TABLE trials ADD COLUMN alone     INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1));  -- 1: the next attempt is trained alone
DROP TRIGGER trials_final;
UPDATE trials SET failed = a.failed, oom = a.oom, preempted = a.preempted, lost = a.lost
FROM (SELECT trial_id, count(*) FILTER (WHERE outcome = 'failed') AS failed, count(*) FILTER (WHERE outcome = 'oom') AS oom,
             count(*) FILTER (WHERE outcome = 'preempted') AS preempted, count(*) FILTER (WHERE outcome = 'lost') AS lost
      FROM attempts WHERE outcome IN ('failed', 'oom', 'preempted', 'lost') GROUP BY trial_id) AS a WHERE a.trial_id = trials.id;
CREATE TRIGGER trials_final BEFORE UPDATE ON trials WHEN OLD.told_index IS NOT NULL
BEGIN
  SELECT RAISE (ABORT, 'a trial that ended never changes');
END;
DROP VIEW failures;

CREATE VIEW failures AS            -- attempts that ended in an error or vanished, the latest first; died is 1 if the worker went down with it
SELECT s.name AS study, a.trial_id AS trial, a.attempt, a.outcome, a.died, a.alone, t.state AS trial_state, a.error, w.name AS worker,
       w.host, a.device, datetime(a.ended_ms / 1000, 'unixepoch') AS ended, t.architecture, t.study_id
FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id JOIN studies AS s ON s.id = t.study_id
LEFT JOIN workers AS w ON w.id = a.worker_id
WHERE a.outcome IN ('failed', 'oom', 'lost')
ORDER BY a.ended_ms DESC, a.trial_id DESC, a.attempt DESC;
)sql";

// Forks: studies that begin with the first trials of another.
constexpr std::string_view kSchema5 = R"sql(
ALTER TABLE studies ADD COLUMN forked_from INTEGER REFERENCES studies (id);  -- NULL: no fork
ALTER TABLE studies ADD COLUMN forked_at   INTEGER                           -- so many of its told trials were inherited
  CHECK (forked_at >= 0 AND (forked_at IS NULL) = (forked_from IS NULL));
ALTER TABLE studies ADD COLUMN observed    INTEGER NOT NULL DEFAULT 0        -- so many of these the strategy knew from the start
  CHECK (observed BETWEEN 0 AND coalesce(forked_at, 0));
ALTER TABLE trials ADD COLUMN inherited_from INTEGER REFERENCES trials (id); -- the trial this is a copy of: not trained here
ALTER TABLE attempts ADD COLUMN inherited INTEGER NOT NULL DEFAULT 0 CHECK (inherited IN (0, 1));  -- 1: of an inherited trial
)sql";

constexpr std::array<std::string_view, 5> kMigrations{kSchema1, kSchema2, kSchema3, kSchema4, kSchema5};

void note(Database& database, std::string_view key, const std::string& value) {
  Statement(database, "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")
      .bind(key, value)
      .run();
}

}  // namespace

std::span<const std::string_view> migrations() { return kMigrations; }

std::int64_t check_schema(const Database& database) {
  const std::int64_t application = database.integer("PRAGMA application_id");
  const std::int64_t version = database.integer("PRAGMA user_version");
  const std::int64_t objects = database.integer("SELECT count(*) FROM sqlite_schema");
  if (application == 0 && version == 0 && objects == 0) return 0;
  if (application != kApplicationId) {
    throw StoreError(database.path() + ": this SQLite database belongs to another program (application id " +
                     std::to_string(application) + ", " + std::to_string(objects) +
                     " tables and indexes; ours has application id " + std::to_string(kApplicationId) +
                     "); nothing was changed, choose another file");
  }
  if (version > newest_schema()) {
    throw StoreError(database.path() + ": its schema is version " + std::to_string(version) +
                     ", and this program (fusiond " + kCodeVersion + ") knows versions up to " +
                     std::to_string(newest_schema()) + "; use the newer fusiond that wrote it");
  }
  if (version < 1) {
    throw StoreError(database.path() + ": its schema is version " + std::to_string(version) + ", expected 1 to " +
                     std::to_string(newest_schema()));
  }
  return version;
}

void migrate(Database& database, UnixMs now) {
  for (;;) {
    Transaction step(database, Transaction::Kind::write);
    const std::int64_t version = check_schema(database);
    if (version == newest_schema()) return;
    database.execute(std::string(kMigrations[static_cast<std::size_t>(version)]).c_str());
    // A PRAGMA takes no bound values; both are part of the transaction.
    database.execute(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str());
    database.execute(("PRAGMA user_version = " + std::to_string(version + 1)).c_str());
    note(database, version == 0 ? "created_by" : "upgraded_by", std::string("fusiond ") + kCodeVersion);
    note(database, version == 0 ? "created_ms" : "upgraded_ms", std::to_string(now));
    step.commit();
  }
}

}  // namespace fusion
