//! The ends of the help texts: examples of each subcommand, and the exit codes.

pub(super) const EXIT_CODES: &str = "\
EXIT CODES
  CMD's own  CMD ended by itself
  128 + n    CMD, or the waiting tooz, was ended by signal n
  1          the doctor found something wrong
  64         wrong usage: an option, a name, a URL, or what the backend can't do
  66         no such group or holder
  69         the backend can't be reached, or does not answer in time
  73         there is one already: the group, or a living member of that id
  74         the output can't be written
  75         not acquired; or the group has members, so it can't be deleted
  76         lost, and CMD was ended
  77         the backend refuses the credentials, or lacks a permission
  125        any other error of tooz itself
  126, 127   CMD can't be executed, was not found
The reason is on stderr, with --json as JSON.";

pub(super) const LOCK: &str = "\
EXAMPLES
  tooz lock nightly -- ./backup.sh
      wait for the lock, then run
  tooz lock nightly -n -E 0 -- ./backup.sh
      from cron: no word, and so no mail, if it runs elsewhere
  tooz lock nightly -w 30s -- ./backup.sh
      wait for half a minute, then exit with 75
  tooz lock cache -s -c 'tar c data | ssh host tar x'
      shared, and a line for the shell
  tooz lock nightly --events-fd 3 -- ./backup.sh 3>events.jsonl
      what happens, for programs";

pub(super) const ELECT: &str = "\
EXAMPLES
  tooz elect scheduler -- ./scheduler
      run on one machine at a time
  tooz elect scheduler --once -- ./scheduler
      exit with 76 after a loss
  tooz elect scheduler -c 'exec ./scheduler --epoch $TOOZ_EPOCH'";

pub(super) const JOIN: &str = "\
EXAMPLES
  tooz join workers -- ./worker
      a member while it runs
  tooz join workers --capabilities '{\"weight\": 2}'
      a member until a signal, with twice the share of partitions";

pub(super) const STATUS: &str = "\
EXAMPLES
  tooz status
      a live screen
  tooz status --filter nightly --every 5s
  tooz status --once
      as tables
  tooz status --json | jq '.locks[] | select(.waiters != [])'
      as one value";

pub(super) const MEMBERS: &str = "\
EXAMPLES
  tooz members workers
  tooz members workers --wait-for-group=1m --json | jq -r '.[].member'";

pub(super) const GROUPS: &str = "\
EXAMPLES
  tooz groups
  tooz groups --json";

pub(super) const LEADER: &str = "\
EXAMPLES
  tooz leader
      of each group
  tooz leader scheduler --json | jq -r .member";

pub(super) const LOCKS: &str = "\
EXAMPLES
  tooz locks
  tooz locks --json | jq -r '.[] | select(.waiters != []) | .lock'";

pub(super) const HOLDERS: &str = "\
EXAMPLES
  tooz holders nightly
  tooz holders nightly --json | jq '.[0].since'";

pub(super) const GROUP: &str = "\
EXAMPLES
  tooz group create workers
  tooz group delete workers";

pub(super) const BREAK: &str = "\
EXAMPLES
  tooz break nightly
      all grants of it
  tooz break nightly --token 17
      only the grant that tooz holders showed
  tooz break --leader scheduler
      the leadership of group scheduler";

pub(super) const WATCH: &str = "\
EXAMPLES
  tooz watch workers --json | jq -r .event
  tooz watch scheduler --leader --wait-for-group | head -1";

pub(super) const PARTITION: &str = "\
EXAMPLES
  tooz partition workers customer-17 customer-18
  tooz partition workers --replicas 2 customer-17";

pub(super) const RING: &str = "\
EXAMPLES
  tooz ring --node a --node b=2 key-1 key-2";

pub(super) const DRIVERS: &str = "\
EXAMPLES
  tooz drivers
  tooz drivers --json | jq -r '.drivers[].schemes[]'";

pub(super) const DOCTOR: &str = "\
EXAMPLES
  tooz --url redis://db.example:6379 doctor
  tooz doctor --strict --json | jq .verdict";

pub(super) const SCHEMA: &str = "\
EXAMPLES
  tooz schema postgres --role billing | psql billing
  tooz schema mysql --schema billing | mysql";

pub(super) const COMPLETIONS: &str = "\
EXAMPLES
  tooz completions bash > ~/.local/share/bash-completion/completions/tooz
  tooz completions zsh > ~/.zfunc/_tooz";

pub(super) const MANUAL: &str = "\
EXAMPLES
  tooz manual target/dist
      man1/tooz.1, man1/tooz-lock.1 and so on, and completions/";
