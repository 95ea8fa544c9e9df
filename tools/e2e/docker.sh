#!/usr/bin/env bash
# docker.sh up|down: starts dockerd where none answers, with its own data folder in the cache; ends only what it started.
. "$(dirname "$0")/env.sh"
pid_file=$STATE/dockerd.pid
ours() { [ -e "$pid_file" ] && [ "$(cat "/proc/$(cat "$pid_file")/comm" 2> /dev/null)" = dockerd ]; }

up() {
  docker version > /dev/null 2>&1 && return
  command -v dockerd > /dev/null || { say "docker is needed: apt-get install docker.io"; exit 78; }
  local runtime=()
  # Some machines give even root no CAP_SYS_RESOURCE; privileged containers then need a runtime that does not ask for it.
  capsh --has-p=cap_sys_resource 2> /dev/null || runtime=(--add-runtime "local=$ROOT/tools/e2e/runc-local" --default-runtime local)
  (
    # A daemon outlives whoever starts it and must keep none of his files: a lock among them would be held for ever.
    for file in /proc/"$BASHPID"/fd/*; do file=${file##*/}; [ "$file" -le 2 ] || eval "exec $file>&-"; done
    exec setsid nohup dockerd --data-root "$CACHE/docker" "${runtime[@]}" > "$STATE/dockerd.log" 2>&1 < /dev/null
  ) &
  echo $! > "$pid_file"
  for _ in $(seq 150); do docker version > /dev/null 2>&1 && return; sleep 0.2; done
  tail -n 20 "$STATE/dockerd.log" >&2; say "dockerd did not start"; exit 70
}

down() {
  ours || return 0
  local pid; pid=$(cat "$pid_file")
  kill -TERM "$pid"
  for _ in $(seq 150); do [ -e "/proc/$pid" ] || break; sleep 0.2; done
  rm -f "$pid_file"
}

"$1"
