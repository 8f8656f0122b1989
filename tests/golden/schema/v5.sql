-- A database of schema 5 (fusiond 0.1.0), as `store_test --sample FILE` wrote it: `sqlite3 FILE .dump` behind the two PRAGMAs
-- that a dump leaves out. Never changes: tests open it with every later fusiond.
PRAGMA application_id = 1179996996;
PRAGMA user_version = 5;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta (                -- facts of this file
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('created_by','fusiond 0.1.0');
INSERT INTO meta VALUES('created_ms','1700000000000');
INSERT INTO meta VALUES('upgraded_by','fusiond 0.1.0');
INSERT INTO meta VALUES('upgraded_ms','1700000000000');
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
, retries_failed INTEGER NOT NULL DEFAULT 2 CHECK (retries_failed >= 0), retries_oom    INTEGER NOT NULL DEFAULT 2 CHECK (retries_oom >= 0), retries_lost   INTEGER NOT NULL DEFAULT 8 CHECK (retries_lost >= 0), resumed_ms     INTEGER NOT NULL DEFAULT 0, forked_from INTEGER REFERENCES studies (id), forked_at   INTEGER                           -- so many of its told trials were inherited
  CHECK (forked_at >= 0 AND (forked_at IS NULL) = (forked_from IS NULL)), observed    INTEGER NOT NULL DEFAULT 0        -- so many of these the strategy knew from the start
  CHECK (observed BETWEEN 0 AND coalesce(forked_at, 0))) STRICT;
INSERT INTO studies VALUES(1,'first','running','',0,1,'18446744073709551615','random','avmnist','d','/data/avmnist/features/features.json','{"dataset":"avmnist/dataset.json","early_stopping":{"min_epochs":1,"policy":"none","reduction":3},"name":"first","parallel":64,"pause_on":{"failures":10,"within_s":600},"priority":0,"retries":{"failures":1,"lost":8},"seed":18446744073709551615,"space":{},"strategy":{"name":"random","trials":100},"training":{"alphas":false,"batch":32,"batchnorm":false,"dropout":0.5,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"evaluate_test":false,"metric":"accuracy","multitask":false,"restart_epochs":1,"restart_factor":2,"restart_rule":"repaired","shuffle":true,"weight_decay":0.0001,"weight_sharing":false,"width":16}}','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}',1700000000000,1700000000000,1,1,8,0,NULL,NULL,0);
INSERT INTO studies VALUES(2,'second','cancelled','',0,2,'18446744073709551615','random','avmnist','d','/data/avmnist/features/features.json','{"dataset":"avmnist/dataset.json","early_stopping":{"min_epochs":1,"policy":"none","reduction":3},"name":"second","parallel":64,"pause_on":{"failures":10,"within_s":600},"priority":0,"retries":{"failures":2,"lost":8},"seed":18446744073709551615,"space":{},"strategy":{"name":"random","trials":100},"training":{"alphas":false,"batch":32,"batchnorm":false,"dropout":0.5,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"evaluate_test":false,"metric":"accuracy","multitask":false,"restart_epochs":1,"restart_factor":2,"restart_rule":"repaired","shuffle":true,"weight_decay":0.0001,"weight_sharing":false,"width":16}}','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}',1700000000000,1700000030600,2,2,8,0,NULL,NULL,0);
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
INSERT INTO workers VALUES(1,'w1','node1',4711,'cuda:0',8,'0.1.0','2.4.0',1700000000000,1700000029700,'connection closed');
INSERT INTO workers VALUES(2,'w2','node2',42,'cpu',2,'0.1.0','1.13.0',1700000000000,NULL,'');
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
  ended_ms       INTEGER, pruned INTEGER NOT NULL DEFAULT 0  -- 1: ended early, dev_score is of the epochs it had
  CHECK (pruned = 0 OR (pruned = 1 AND dev_score IS NOT NULL)), failed    INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0), oom       INTEGER NOT NULL DEFAULT 0 CHECK (oom >= 0), preempted INTEGER NOT NULL DEFAULT 0 CHECK (preempted >= 0), lost      INTEGER NOT NULL DEFAULT 0 CHECK (lost >= 0), deaths    INTEGER NOT NULL DEFAULT 0 CHECK (deaths BETWEEN 0 AND lost), alone     INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1)), inherited_from INTEGER REFERENCES trials (id),                                   -- NULL while not final
  UNIQUE (study_id, ask_index),
  UNIQUE (study_id, architecture, replica),
  FOREIGN KEY (id, scored_attempt) REFERENCES attempts (trial_id, attempt),
  CHECK ((told_index IS NULL) = (state IN ('queued', 'leased'))),
  CHECK ((ended_ms IS NULL) = (told_index IS NULL)),
  CHECK ((dev_score IS NULL) = (state <> 'completed')),
  CHECK ((scored_attempt IS NULL) = (dev_score IS NULL))
) STRICT;
INSERT INTO trials VALUES(1,1,0,0,'[[0,0,0]]',1,0,8636986678672456,'completed',1,0,1,0.29999999999999998889,0.25,2,0.29999999999999998889,0.14999999999999999444,0.074999999999999997224,1.25,3.5,1234,'','{"level":0}',1700000000000,1700000003600,1700000003600,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(2,1,1,1,'[[0,0,1]]',1,0,2780220970705437,'completed',1,0,1,0.5500000000000000444,0.29999999999999998889,2,0.5500000000000000444,0.2750000000000000222,0.1375000000000000111,1.25,3.5,1234,'','{"level":1}',1700000000000,1700000007200,1700000007200,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(3,1,2,2,'[[0,1,0]]',1,0,2683425258928729,'completed',1,0,1,0.4000000000000000222,0.34999999999999997779,2,0.4000000000000000222,0.2000000000000000111,0.10000000000000000555,1.25,3.5,1234,'','{"level":2}',1700000000000,1700000010800,1700000010800,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(4,1,3,3,'[[0,1,1]]',1,0,8428063861517318,'completed',1,0,1,0.6500000000000000222,0.4000000000000000222,2,0.6500000000000000222,0.3250000000000000111,0.16250000000000000555,1.25,3.5,1234,'','{"level":0}',1700000000000,1700000014400,1700000014400,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(5,1,4,4,'[[0,2,0]]',1,0,6927533303246603,'completed',1,0,1,0.5,0.4500000000000000111,2,0.5,0.25,0.125,1.25,3.5,1234,'','{"level":1}',1700000000000,1700000018000,1700000018000,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(6,1,5,5,'[[0,2,1]]',1,0,6849473499074640,'completed',1,0,1,0.34999999999999997779,0.5,2,0.34999999999999997779,0.17499999999999998889,0.087499999999999994448,1.25,3.5,1234,'','{"level":2}',1700000000000,1700000021600,1700000021600,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(7,1,6,6,'[[1,0,0]]',1,0,6955325278569903,'completed',1,0,1,0.60000000000000008881,0.5500000000000000444,2,0.60000000000000008881,0.3000000000000000444,0.1500000000000000222,1.25,3.5,1234,'','{"level":0}',1700000000000,1700000025200,1700000025200,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(8,1,7,7,'[[1,0,1]]',1,0,5273828659941201,'completed',1,0,1,0.4500000000000000111,0.60000000000000008881,2,0.4500000000000000111,0.22500000000000000555,0.11250000000000000277,1.25,3.5,1234,'','{"level":1}',1700000000000,1700000028800,1700000028800,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(9,1,8,8,'[[1,1,0]]',1,0,1947433152533157,'failed',3,2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'CUDA out of memory','{"level":2}',1700000000000,1700000029700,1700000029700,0,2,1,0,0,0,0,NULL);
INSERT INTO trials VALUES(10,1,9,9,'[[1,1,1]]',1,0,3100977309057708,'completed',2,0,1,0.61999999999999999555,NULL,2,0.61999999999999999555,0.30999999999999999777,0.15499999999999999888,1.25,3.5,1234,'','{"level":0}',1700000000000,1700000030600,1700000030600,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(11,1,10,NULL,'[[1,2,0]]',1,0,5167054533490348,'leased',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','{"level":1}',1700000000000,1700000030600,NULL,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(12,1,11,NULL,'[[1,2,1]]',1,0,6206706076550084,'queued',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','{"level":2}',1700000000000,1700000030600,NULL,0,0,0,0,1,0,1,NULL);
INSERT INTO trials VALUES(13,2,0,0,'[[0,0,0]]',1,0,8636986678672456,'cancelled',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','{"level":0}',1700000000000,1700000030600,1700000030600,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(14,2,1,1,'[[0,0,1]]',1,0,2780220970705437,'cancelled',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','{"level":1}',1700000000000,1700000030600,1700000030600,0,0,0,0,0,0,0,NULL);
INSERT INTO trials VALUES(15,2,2,2,'[[0,1,0]]',1,0,2683425258928729,'cancelled',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','{"level":2}',1700000000000,1700000030600,1700000030600,0,0,0,0,0,0,0,NULL);
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
  ended_ms      INTEGER, alone INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1)), died  INTEGER NOT NULL DEFAULT 0
  CHECK (died = 0 OR (died = 1 AND outcome = 'lost')), inherited INTEGER NOT NULL DEFAULT 0 CHECK (inherited IN (0, 1)),
  PRIMARY KEY (trial_id, attempt),
  CHECK ((outcome IS NULL) = (ended_ms IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO attempts VALUES(1,1,2,'completed','','autograd','cpu','0.1.0','1.13.0',1700000001500,1700000003600,0,0,0);
INSERT INTO attempts VALUES(2,1,1,'completed','','autograd','cpu','0.1.0','1.13.0',1700000005100,1700000007200,0,0,0);
INSERT INTO attempts VALUES(3,1,2,'completed','','autograd','cpu','0.1.0','1.13.0',1700000008700,1700000010800,0,0,0);
INSERT INTO attempts VALUES(4,1,1,'completed','','autograd','cpu','0.1.0','1.13.0',1700000012300,1700000014400,0,0,0);
INSERT INTO attempts VALUES(5,1,2,'completed','','autograd','cpu','0.1.0','1.13.0',1700000015900,1700000018000,0,0,0);
INSERT INTO attempts VALUES(6,1,1,'completed','','autograd','cpu','0.1.0','1.13.0',1700000019500,1700000021600,0,0,0);
INSERT INTO attempts VALUES(7,1,2,'completed','','autograd','cpu','0.1.0','1.13.0',1700000023100,1700000025200,0,0,0);
INSERT INTO attempts VALUES(8,1,1,'completed','','autograd','cpu','0.1.0','1.13.0',1700000026700,1700000028800,0,0,0);
INSERT INTO attempts VALUES(9,1,2,'oom','CUDA out of memory','autograd','cpu','0.1.0','1.13.0',1700000028800,1700000029100,0,0,0);
INSERT INTO attempts VALUES(9,2,2,'failed','CUDA out of memory','autograd','cpu','0.1.0','1.13.0',1700000029100,1700000029400,1,0,0);
INSERT INTO attempts VALUES(9,3,2,'failed','CUDA out of memory','autograd','cpu','0.1.0','1.13.0',1700000029400,1700000029700,0,0,0);
INSERT INTO attempts VALUES(10,1,1,'completed','','autograd','cpu','0.1.0','1.13.0',1700000029700,1700000030600,0,0,0);
INSERT INTO attempts VALUES(10,2,2,'cancelled','attempt 1 ended completed first','','','','',1700000029700,1700000030600,0,0,0);
INSERT INTO attempts VALUES(11,1,2,NULL,'','','','','',1700000030600,NULL,0,0,0);
INSERT INTO attempts VALUES(12,1,1,'lost','the worker was silent for 90 s','autograd','cpu','0.1.0','1.13.0',1700000030600,1700000030600,0,1,0);
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
INSERT INTO epochs VALUES(1,1,1,2.0,0.30999999999999999777,0.0010000000000000000208,0.69999999999999995559,1700000002200);
INSERT INTO epochs VALUES(1,1,2,1.0,0.32000000000000000666,0.0005000000000000000104,0.69999999999999995559,1700000002900);
INSERT INTO epochs VALUES(1,1,3,0.66666666666666662965,0.32999999999999996003,0.0003333333333333333222,0.69999999999999995559,1700000003600);
INSERT INTO epochs VALUES(2,1,1,2.0,0.35999999999999998667,0.0010000000000000000208,0.69999999999999995559,1700000005800);
INSERT INTO epochs VALUES(2,1,2,1.0,0.36999999999999999555,0.0005000000000000000104,0.69999999999999995559,1700000006500);
INSERT INTO epochs VALUES(2,1,3,0.66666666666666662965,0.38000000000000000444,0.0003333333333333333222,0.69999999999999995559,1700000007200);
INSERT INTO epochs VALUES(3,1,1,2.0,0.41000000000000003108,0.0010000000000000000208,0.69999999999999995559,1700000009400);
INSERT INTO epochs VALUES(3,1,2,1.0,0.42000000000000003996,0.0005000000000000000104,0.69999999999999995559,1700000010100);
INSERT INTO epochs VALUES(3,1,3,0.66666666666666662965,0.43000000000000004884,0.0003333333333333333222,0.69999999999999995559,1700000010800);
INSERT INTO epochs VALUES(4,1,1,2.0,0.46000000000000001998,0.0010000000000000000208,0.69999999999999995559,1700000013000);
INSERT INTO epochs VALUES(4,1,2,1.0,0.47000000000000002886,0.0005000000000000000104,0.69999999999999995559,1700000013700);
INSERT INTO epochs VALUES(4,1,3,0.66666666666666662965,0.47999999999999998223,0.0003333333333333333222,0.69999999999999995559,1700000014400);
INSERT INTO epochs VALUES(5,1,1,2.0,0.51000000000000000888,0.0010000000000000000208,0.69999999999999995559,1700000016600);
INSERT INTO epochs VALUES(5,1,2,1.0,0.52000000000000001776,0.0005000000000000000104,0.69999999999999995559,1700000017300);
INSERT INTO epochs VALUES(5,1,3,0.66666666666666662965,0.53000000000000002664,0.0003333333333333333222,0.69999999999999995559,1700000018000);
INSERT INTO epochs VALUES(6,1,1,2.0,0.56000000000000005329,0.0010000000000000000208,0.69999999999999995559,1700000020200);
INSERT INTO epochs VALUES(6,1,2,1.0,0.57000000000000006217,0.0005000000000000000104,0.69999999999999995559,1700000020900);
INSERT INTO epochs VALUES(6,1,3,0.66666666666666662965,0.58000000000000007105,0.0003333333333333333222,0.69999999999999995559,1700000021600);
INSERT INTO epochs VALUES(7,1,1,2.0,0.61000000000000009769,0.0010000000000000000208,0.69999999999999995559,1700000023800);
INSERT INTO epochs VALUES(7,1,2,1.0,0.62000000000000010658,0.0005000000000000000104,0.69999999999999995559,1700000024500);
INSERT INTO epochs VALUES(7,1,3,0.66666666666666662965,0.63000000000000011546,0.0003333333333333333222,0.69999999999999995559,1700000025200);
INSERT INTO epochs VALUES(8,1,1,2.0,0.66000000000000003108,0.0010000000000000000208,0.69999999999999995559,1700000027400);
INSERT INTO epochs VALUES(8,1,2,1.0,0.67000000000000003996,0.0005000000000000000104,0.69999999999999995559,1700000028100);
INSERT INTO epochs VALUES(8,1,3,0.66666666666666662965,0.68000000000000004884,0.0003333333333333333222,0.69999999999999995559,1700000028800);
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
INSERT INTO surrogate_fits VALUES(1,0,'lstm',4,0.010000000000000000208,NULL,NULL,0.2000000000000000111,'{"epochs":50}',1700000030600);
INSERT INTO surrogate_fits VALUES(1,1,'lstm',8,0.005000000000000000104,0.5,0.050000000000000002775,0.2000000000000000111,'{"epochs":50}',1700000030600);
INSERT INTO surrogate_fits VALUES(1,2,'lstm',12,0.0033333333333333335472,0.60000000000000008881,0.050000000000000002775,0.2000000000000000111,'{"epochs":50}',1700000030600);
CREATE TABLE events (              -- what an operator would want to read later
  id        INTEGER PRIMARY KEY,
  at_ms     INTEGER NOT NULL,
  kind      TEXT    NOT NULL,
  study_id  INTEGER,               -- no foreign keys: a line of the log is never refused
  trial_id  INTEGER,
  worker_id INTEGER,
  text      TEXT    NOT NULL
, retraining_id INTEGER) STRICT;
INSERT INTO events VALUES(1,1700000000000,'study_submitted',1,NULL,NULL,'first on avmnist',NULL);
INSERT INTO events VALUES(2,1700000030600,'result_late',1,10,NULL,'attempt 1 came in completed, nobody had finished the trial: accepted',NULL);
INSERT INTO events VALUES(3,1700000030600,'result_late',1,10,NULL,'attempt 2 came in completed, the trial is completed already: dropped',NULL);
INSERT INTO events VALUES(4,1700000105600,'retraining_submitted',1,1,NULL,'linear head',1);
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
INSERT INTO retrainings VALUES(1,1,1,'{"study":{"id":1,"name":"first"},"trial":{"dev_score":0.65,"id":1}}','[[0,1,1]]',1,'avmnist','d','/data/avmnist/features/features.json','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}','linear','{"accumulate":1,"alphas":false,"batch":32,"batchnorm":false,"bert_dropout":0.1,"bert_heads":8,"bert_keep":0.8,"bert_layers":1,"bert_variant":"BERT5","clip_norm":0.0,"dropout":0.4,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"finetune":"all","fusion_epochs":1,"head":"linear","head_dropout":0.8,"l2_normalise":false,"metric":"accuracy","mixed_precision":"off","mmtm_gate":"paper","mmtm_ratio":4,"multitask":true,"optimiser":"adam","plateau_factor":0.1,"plateau_patience":5,"reduced_width":0,"reduction":"none","restart_epochs":5,"restart_factor":2,"restart_rule":"repaired","schedule":"cosine","weight_decay":0.0001,"width":256}',9007199254740991,0,1,'completed',2,0,2,0.875,0.86499999999999999111,2,0.25,60.500000000000000001,123456,23456,32,'{"dev":{"accuracy":0.875,"confusion":[[1,0],[0,1]]},"device":"cpu","test":{"accuracy":0.865,"macro_f1":0.5}}','','/data/artifacts/retraining-1-720f8822',1700000030600,1700000105600,1700000105600);
INSERT INTO retrainings VALUES(2,NULL,NULL,'{"source":"best.json","study":{"id":9,"name":"elsewhere"},"trial":{"dev_score":0.75,"id":77}}','[[0,1,1]]',1,'avmnist','d','/data/avmnist/features/features.json','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}','bert','{"accumulate":1,"alphas":false,"batch":32,"batchnorm":false,"bert_dropout":0.1,"bert_heads":8,"bert_keep":0.8,"bert_layers":1,"bert_variant":"BERT5","clip_norm":0.0,"dropout":0.4,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"finetune":"all","fusion_epochs":1,"head":"bert","head_dropout":0.8,"l2_normalise":false,"metric":"accuracy","mixed_precision":"off","mmtm_gate":"paper","mmtm_ratio":4,"multitask":true,"optimiser":"adam","plateau_factor":0.1,"plateau_patience":5,"reduced_width":0,"reduction":"none","restart_epochs":5,"restart_factor":2,"restart_rule":"repaired","schedule":"cosine","weight_decay":0.0001,"width":256}',9007199254740991,0,0,'failed',1,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'the loss became NaN in epoch 2; the last finite one was 1.25','/data/artifacts/retraining-2-6413e996',1700000105600,1700000105600,1700000105600);
INSERT INTO retrainings VALUES(3,1,1,'{"study":{"id":1,"name":"first"},"trial":{"dev_score":0.65,"id":1}}','[[0,1,1]]',1,'avmnist','d','/data/avmnist/features/features.json','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}','mmtm','{"accumulate":1,"alphas":false,"batch":32,"batchnorm":false,"bert_dropout":0.1,"bert_heads":8,"bert_keep":0.8,"bert_layers":1,"bert_variant":"BERT5","clip_norm":0.0,"dropout":0.4,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"finetune":"all","fusion_epochs":1,"head":"mmtm","head_dropout":0.8,"l2_normalise":false,"metric":"accuracy","mixed_precision":"off","mmtm_gate":"paper","mmtm_ratio":4,"multitask":true,"optimiser":"adam","plateau_factor":0.1,"plateau_patience":5,"reduced_width":0,"reduction":"none","restart_epochs":5,"restart_factor":2,"restart_rule":"repaired","schedule":"cosine","weight_decay":0.0001,"width":256}',9007199254740991,0,1,'paused',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','/data/artifacts/retraining-3-2bc6ebce',1700000105600,1700000105600,NULL);
INSERT INTO retrainings VALUES(4,1,1,'{"study":{"id":1,"name":"first"},"trial":{"dev_score":0.65,"id":1}}','[[0,1,1]]',1,'avmnist','d','/data/avmnist/features/features.json','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}','lstm','{"accumulate":1,"alphas":false,"batch":32,"batchnorm":false,"bert_dropout":0.1,"bert_heads":8,"bert_keep":0.8,"bert_layers":1,"bert_variant":"BERT5","clip_norm":0.0,"dropout":0.4,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"finetune":"all","fusion_epochs":1,"head":"lstm","head_dropout":0.8,"l2_normalise":false,"metric":"accuracy","mixed_precision":"off","mmtm_gate":"paper","mmtm_ratio":4,"multitask":true,"optimiser":"adam","plateau_factor":0.1,"plateau_patience":5,"reduced_width":0,"reduction":"none","restart_epochs":5,"restart_factor":2,"restart_rule":"repaired","schedule":"cosine","weight_decay":0.0001,"width":256}',9007199254740991,0,1,'leased',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','/data/artifacts/retraining-4-9a968fd1',1700000105600,1700000105600,NULL);
INSERT INTO retrainings VALUES(5,1,1,'{"study":{"id":1,"name":"first"},"trial":{"dev_score":0.65,"id":1}}','[[0,1,1]]',1,'avmnist','d','/data/avmnist/features/features.json','{"class_names":[],"classes":10,"digest":"d","modalities":[{"has_logits":true,"name":"audio","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12},{"name":"tap3","width":24},{"name":"tap4","width":48}]},{"has_logits":true,"name":"image","taps":[{"name":"tap0","width":3},{"name":"tap1","width":6},{"name":"tap2","width":12}]}],"name":"avmnist","rows":{"dev":5000,"test":10000,"train":55000}}','linear','{"accumulate":1,"alphas":false,"batch":32,"batchnorm":false,"bert_dropout":0.1,"bert_heads":8,"bert_keep":0.8,"bert_layers":1,"bert_variant":"BERT5","clip_norm":0.0,"dropout":0.4,"epochs":3,"eta_max":0.001,"eta_min":1e-06,"finetune":"all","fusion_epochs":1,"head":"linear","head_dropout":0.8,"l2_normalise":false,"metric":"accuracy","mixed_precision":"off","mmtm_gate":"paper","mmtm_ratio":4,"multitask":true,"optimiser":"adam","plateau_factor":0.1,"plateau_patience":5,"reduced_width":0,"reduction":"none","restart_epochs":5,"restart_factor":2,"restart_rule":"repaired","schedule":"cosine","weight_decay":0.0001,"width":256}',9007199254740991,0,1,'queued',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'','/data/artifacts/retraining-5-e94d441c',1700000105600,1700000105600,NULL);
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
INSERT INTO retraining_attempts VALUES(1,1,2,'lost','the worker was silent for 60 s','cpu','0.1.0','1.13.0',1700000030600,1700000068100);
INSERT INTO retraining_attempts VALUES(1,2,2,'completed','','cpu','0.1.0','1.13.0',1700000068100,1700000105600);
INSERT INTO retraining_attempts VALUES(2,1,2,'failed','the loss became NaN in epoch 2; the last finite one was 1.25','cpu','0.1.0','1.13.0',1700000105600,1700000105600);
INSERT INTO retraining_attempts VALUES(4,1,2,NULL,'','','','',1700000105600,NULL);
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
INSERT INTO retraining_epochs VALUES(1,1,1,1,2.0,2.5,0.5500000000000000444,0.0010000000000000000208,12.5,4000.0,1700000043100);
INSERT INTO retraining_epochs VALUES(1,1,2,2,1.0,1.25,0.59999999999999997779,0.0005000000000000000104,12.5,4000.0,1700000055600);
INSERT INTO retraining_epochs VALUES(1,1,3,2,0.66666666666666662965,0.83333333333333337034,0.6500000000000000222,0.0003333333333333333222,12.5,4000.0,1700000068100);
INSERT INTO retraining_epochs VALUES(1,2,2,2,1.0,1.25,0.59999999999999997779,0.0005000000000000000104,12.5,4000.0,1700000080600);
INSERT INTO retraining_epochs VALUES(1,2,3,2,0.66666666666666662965,0.83333333333333337034,0.6500000000000000222,0.0003333333333333333222,12.5,4000.0,1700000093100);
INSERT INTO retraining_epochs VALUES(1,2,4,2,0.5,0.625,0.69999999999999995559,0.0002500000000000000052,12.5,4000.0,1700000105600);
CREATE TABLE artifacts (           -- files that a completed retraining made
  retraining_id INTEGER NOT NULL REFERENCES retrainings (id),
  name          TEXT    NOT NULL CHECK (name <> '' AND instr(name, '/') = 0),
  path          TEXT    NOT NULL,  -- absolute, as the worker wrote it
  bytes         INTEGER NOT NULL CHECK (bytes >= 0),
  sha256        TEXT    NOT NULL CHECK (length(sha256) = 64),
  PRIMARY KEY (retraining_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO artifacts VALUES(1,'architecture.json','/data/artifacts/r/architecture.json',512,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb');
INSERT INTO artifacts VALUES(1,'model.pt','/data/artifacts/r/model.pt',4096,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
CREATE INDEX workers_connected ON workers (id) WHERE left_ms IS NULL;
CREATE UNIQUE INDEX trials_told ON trials (study_id, told_index) WHERE told_index IS NOT NULL;
CREATE INDEX trials_ended  ON trials (study_id, ended_ms) WHERE ended_ms IS NOT NULL;
CREATE INDEX trials_state  ON trials (study_id, state, ask_index);
CREATE INDEX trials_best   ON trials (study_id, dev_score DESC, ask_index) WHERE dev_score IS NOT NULL;
CREATE INDEX trials_leased ON trials (id) WHERE state = 'leased';
CREATE UNIQUE INDEX attempts_open ON attempts (trial_id) WHERE outcome IS NULL;
CREATE INDEX attempts_held ON attempts (worker_id, trial_id) WHERE outcome IS NULL;
CREATE INDEX events_study ON events (study_id, id);
CREATE VIEW attempts_log AS        -- every attempt at every trial; outcome is 'running' while it is open
SELECT s.name AS study, a.trial_id AS trial, a.attempt, coalesce(a.outcome, 'running') AS outcome, t.state AS trial_state,
       w.name AS worker, w.host, a.error, a.engine, a.device, a.code_version, a.torch_version,
       datetime(a.started_ms / 1000, 'unixepoch') AS started, round((a.ended_ms - a.started_ms) / 1000.0, 2) AS seconds,
       t.architecture, t.study_id
FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id JOIN studies AS s ON s.id = t.study_id
LEFT JOIN workers AS w ON w.id = a.worker_id
ORDER BY a.trial_id, a.attempt
;
CREATE VIEW surrogate_quality AS   -- how good the predictions were that chose the trials
SELECT s.name AS study, f.fit_index, f.surrogate, f.observations, round(f.loss, 6) AS loss,
       round(f.rank_correlation, 4) AS rank_correlation, round(f.mean_abs_error, 4) AS mean_abs_error,
       round(f.seconds, 3) AS seconds, datetime(f.at_ms / 1000, 'unixepoch') AS at, f.study_id
FROM surrogate_fits AS f JOIN studies AS s ON s.id = f.study_id
ORDER BY f.study_id, f.fit_index
;
CREATE VIEW epoch_curves AS        -- learning curves; counts is 1 for the attempt whose score stands
SELECT s.name AS study, e.trial_id AS trial, e.attempt, e.epoch, round(e.train_loss, 6) AS train_loss,
       round(e.dev_score, 4) AS dev_score, e.learning_rate, round(e.seconds, 3) AS seconds,
       e.attempt IS t.scored_attempt AS counts, t.architecture, t.study_id
FROM epochs AS e JOIN trials AS t ON t.id = e.trial_id JOIN studies AS s ON s.id = t.study_id
ORDER BY e.trial_id, e.attempt, e.epoch
;
CREATE INDEX trials_pruned ON trials (study_id) WHERE pruned;
CREATE VIEW leaderboard AS         -- trials that were trained to their end, best first; rank counts within the study
SELECT s.name AS study, r.rank, round(t.dev_score, 4) AS dev_score, round(t.test_score, 4) AS test_score, t.steps,
       t.architecture, t.best_epoch, round(t.train_s, 2) AS train_s, t.parameters, t.id AS trial, t.replica, t.seed,
       round(t.dev_accuracy, 4) AS dev_accuracy, round(t.dev_weighted_f1, 4) AS dev_weighted_f1,
       round(t.dev_macro_f1, 4) AS dev_macro_f1, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, row_number() OVER (PARTITION BY study_id ORDER BY dev_score DESC, ask_index) AS rank
      FROM trials WHERE dev_score IS NOT NULL AND NOT pruned) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY t.dev_score DESC, t.study_id, r.rank
;
CREATE VIEW history AS             -- trials in the order they ended, with the best score until then (of those not pruned)
SELECT s.name AS study, t.told_index, t.state, t.pruned, round(t.dev_score, 4) AS dev_score,
       round(r.best_so_far, 4) AS best_so_far,
       t.steps, t.architecture, round((t.ended_ms - s.created_ms) / 1000.0, 1) AS elapsed_s, round(t.train_s, 2) AS train_s,
       t.id AS trial, t.ask_index, datetime(t.ended_ms / 1000, 'unixepoch') AS ended, t.study_id
FROM (SELECT id, study_id, told_index,
             max(CASE WHEN NOT pruned THEN dev_score END) OVER (PARTITION BY study_id ORDER BY told_index) AS best_so_far
      FROM trials WHERE told_index IS NOT NULL) AS r
JOIN trials AS t ON t.id = r.id JOIN studies AS s ON s.id = t.study_id
ORDER BY r.study_id, r.told_index
;
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
GROUP BY s.id ORDER BY s.id
;
CREATE INDEX retrainings_best  ON retrainings (dev_score DESC, id) WHERE dev_score IS NOT NULL;
CREATE INDEX retrainings_open  ON retrainings (id) WHERE ended_ms IS NULL;
CREATE INDEX retrainings_trial ON retrainings (trial_id);
CREATE TRIGGER retrainings_final BEFORE UPDATE ON retrainings WHEN OLD.ended_ms IS NOT NULL
BEGIN
  SELECT RAISE (ABORT, 'a retraining that ended never changes');
END;
CREATE UNIQUE INDEX retraining_attempts_open ON retraining_attempts (retraining_id) WHERE outcome IS NULL;
CREATE TRIGGER artifacts_final BEFORE UPDATE ON artifacts
BEGIN
  SELECT RAISE (ABORT, 'an artifact never changes');
END;
CREATE VIEW retrainings_board AS   -- the best first, then those without a score, the latest first
SELECT coalesce(s.name, json_extract(r.origin, '$.study.name'), '') AS study, r.trial_id AS trial, r.head, r.state,
       round(r.dev_score, 4) AS dev_score, round(r.test_score, 4) AS test_score, r.parameters, r.trained_parameters,
       (SELECT count(DISTINCT e.epoch) FROM retraining_epochs AS e WHERE e.retraining_id = r.id) AS epochs, r.best_epoch,
       round(r.train_s, 1) AS seconds, json_extract(r.options, '$.width') AS width, json_extract(r.options, '$.finetune') AS finetune,
       r.architecture, r.dataset, r.attempts, r.error, r.id AS retraining, datetime(r.created_ms / 1000, 'unixepoch') AS created,
       datetime(r.ended_ms / 1000, 'unixepoch') AS ended, r.study_id
FROM retrainings AS r LEFT JOIN studies AS s ON s.id = r.study_id
ORDER BY r.dev_score DESC NULLS LAST, CASE WHEN r.dev_score IS NULL THEN -r.id ELSE r.id END
;
CREATE VIEW retraining_curves AS   -- learning curves; counts is 1 for the last attempt that trained the epoch
SELECT e.retraining_id AS retraining, r.head, e.attempt, e.epoch, e.phase, round(e.train_loss, 6) AS train_loss,
       round(e.dev_loss, 6) AS dev_loss, round(e.dev_score, 4) AS dev_score, e.learning_rate, round(e.seconds, 3) AS seconds,
       round(e.rows_per_s, 1) AS rows_per_s,
       NOT EXISTS (SELECT 1 FROM retraining_epochs AS later WHERE later.retraining_id = e.retraining_id AND later.epoch = e.epoch
                   AND later.attempt > e.attempt) AS counts
FROM retraining_epochs AS e JOIN retrainings AS r ON r.id = e.retraining_id
ORDER BY e.retraining_id, e.epoch, e.attempt
;
CREATE VIEW retraining_attempts_log AS  -- every attempt at every retraining; outcome is 'running' while it is open
SELECT a.retraining_id AS retraining, r.head, a.attempt, coalesce(a.outcome, 'running') AS outcome, r.state AS retraining_state,
       w.name AS worker, w.host, a.error, a.device, a.code_version, a.torch_version,
       datetime(a.started_ms / 1000, 'unixepoch') AS started, round((a.ended_ms - a.started_ms) / 1000.0, 2) AS seconds
FROM retraining_attempts AS a JOIN retrainings AS r ON r.id = a.retraining_id LEFT JOIN workers AS w ON w.id = a.worker_id
ORDER BY a.retraining_id, a.attempt
;
CREATE INDEX attempts_failed ON attempts (ended_ms) WHERE (outcome IN ('failed', 'oom') OR died);
CREATE TRIGGER trials_final BEFORE UPDATE ON trials WHEN OLD.told_index IS NOT NULL
BEGIN
  SELECT RAISE (ABORT, 'a trial that ended never changes');
END;
CREATE VIEW failures AS            -- attempts that ended in an error or vanished, the latest first; died is 1 if the worker went down with it
SELECT s.name AS study, a.trial_id AS trial, a.attempt, a.outcome, a.died, a.alone, t.state AS trial_state, a.error, w.name AS worker,
       w.host, a.device, datetime(a.ended_ms / 1000, 'unixepoch') AS ended, t.architecture, t.study_id
FROM attempts AS a JOIN trials AS t ON t.id = a.trial_id JOIN studies AS s ON s.id = t.study_id
LEFT JOIN workers AS w ON w.id = a.worker_id
WHERE a.outcome IN ('failed', 'oom', 'lost')
ORDER BY a.ended_ms DESC, a.trial_id DESC, a.attempt DESC
;
COMMIT;
