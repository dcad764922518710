#!/bin/bash
# What networks do to a job on two hosts: a link that goes down, loses packets, is slow or far. The hosts are two network
# namespaces of this machine with a link between them, and the second one's clock is 1000 s ahead.
#   tests/e2e/network_test.sh bazel-bin/tools/sluice bazel-bin/tests/e2e/delay_relay
# Needs no root where user namespaces are allowed. All that it makes (namespaces, links, processes) lives in namespaces of
# its own and goes with them. Where these may not be made it says so and skips; prints N passed, N failed.
set -u

if [[ ${1:-} != --inside ]]; then
  as_root=()
  ((EUID == 0)) || as_root=(--user --map-root-user)
  inside=(unshare "${as_root[@]}" --net --mount --pid --fork --kill-child --mount-proc)
  skip() {
    echo "SKIPPED: no job was run on two hosts: $*"
    exit 0
  }
  for tool in unshare:util-linux ip:iproute2 tc:iproute2 nft:nftables; do
    command -v "${tool%:*}" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null ||
      skip "there is no ${tool%:*} (apt-get install ${tool#*:})"
  done
  why=$("${inside[@]}" /bin/sh -c 'mount -t tmpfs none /run && PATH=$PATH:/usr/sbin:/sbin && ip netns add a &&
    ip link add eth0 netns a type veth peer name eth1' 2>&1) || skip "network namespaces may not be made here: $why"
  exec "${inside[@]}" "$0" --inside "$@"
fi
shift
PATH=$PATH:/usr/sbin:/sbin
relay=$PWD/$2
source tests/e2e/common.sh "$1"
export SLUICE_TOKEN=a-token-for-this-test
passed=0

# --- two hosts ---
mount -t tmpfs none /run
hosts=(a b)
address=(10.87.1.1 10.87.1.2)
ip netns add a && ip netns add b
ip link add near netns a type veth peer name near netns b
for i in 0 1; do
  ip -n ${hosts[i]} address add ${address[i]}/24 dev near
  ip -n ${hosts[i]} link set lo up
  ip -n ${hosts[i]} link set near up
done
later=(unshare --time --monotonic 1000 --fork --kill-child)
"${later[@]}" true || later=()  # systems before Linux 5.6 have one clock
# on HOST COMMAND...
on() {
  local clock=()
  [[ $1 == b ]] && clock=("${later[@]}")
  "${clock[@]}" ip netns exec "$@"
}

make_texts text
cat >job.textproto <<'JOB'
model { family: "gpt2" layers: 2 channels: 32 heads: 2 positions: 32 vocabulary: 256 }
data { text: "text" hold_out { files: "b.txt" } }
training { steps: 8 batch: 8 micro_batches: 4 sequence: 32 gradient_groups: 2 evaluate_every: 3 check_replicas_every: 2 }
optimizer { learning_rate: 0.01 warm_up: 2 }
layout { pp: 2 threads_per_rank: 1 pin: false }
watchdog { seconds: 8 }
JOB
endless=(--set training.steps=1000000)
port=20000

# start ARGUMENT...: one worker on each host, with the output in out.0 and out.1; `join` is where process 0 is.
start() {
  local i
  port=$((port + 1))
  pids=()
  for i in 0 1; do
    on ${hosts[i]} "$sluice" worker job.textproto --process $i --processes 2 --join "$join:$port" --heartbeat $heartbeat \
      --join-timeout 60 "$@" >out.$i 2>&1 </dev/null &
    pids[i]=$!
  done
}
numbers() { grep -oE 'step [0-9]+/[0-9]+  loss [0-9.]+|norm [0-9.e+-]+|held-out loss .*' "$1"; }
# until_step N: process 0 has come so far, within a minute.
until_step() {
  local limit=$((SECONDS + 60))
  until grep -q "^step $1/" out.0; do
    ((SECONDS > limit)) && { fail "step $1 never came: $(tail -n 5 out.0 out.1)"; return 1; }
    sleep 0.05
  done
}
step() { grep -oE '^step [0-9]+' out.0 | tail -n 1 | cut -d' ' -f2; }
# end_within SECONDS CODE: both end so soon with that code.
end_within() {
  local limit=$((SECONDS + $1)) i code
  for i in 0 1; do
    while kill -0 ${pids[i]} 2>/dev/null && ((SECONDS <= limit)); do sleep 0.05; done
    kill -9 ${pids[i]} 2>/dev/null && fail "process $i hung: $(tail -n 5 out.$i)"
    wait ${pids[i]} 2>/dev/null
    code=$?
    ((code == $2)) || fail "process $i ended with $code, not $2: $(tail -n 5 out.$i)"
  done
}
# same_numbers: as in one process.
same_numbers() { diff <(numbers one) <(numbers out.0) >difference || fail "other numbers: $(cat difference)"; }
passes() {
  ((failures == before)) && passed=$((passed + 1)) && echo "passed: $1"
  before=$failures
}
before=0
join=${address[0]}
heartbeat=5
"$sluice" train job.textproto >one 2>&1 </dev/null || fail "train: $(cat one)"

# --- two hosts, each with its clock; in the trace no receive ends before its send began ---
start --set output.trace=trace.json
end_within 60 0
same_numbers
ends=$(sed -nE 's/.*"name":"([0-9]+)(SEND|RECV)_([FB])([0-9]+)","pid":([0-9]+).*"ts":([0-9.]+),"dur":([0-9.]+).*"peer":([0-9]+).*/\2 \3 \4 \5 \8 \6 \7/p' trace.json |
  awk '{ from = $1 == "SEND" ? $4 : $5 + 1; key = $2 " " $3 " " from " " ++n[$1, $2, $3, from] }
       $1 == "SEND" { begun[key] = $6 } $1 == "RECV" { ended[key] = $6 + $7 }
       END { for (k in ended) { all++; if (!(k in begun) || ended[k] < begun[k]) wrong++ } print all + 0, wrong + 0 }')
[[ $ends =~ ^[1-9][0-9]*\ 0$ ]] || fail "of all receives, so many ended before their send began: $ends"
passes "two hosts give the numbers of one, and one trace in order"

# --- the launcher finds an address that the other host reaches ---
cat >ssh <<SSH
#!/bin/bash
[[ \$1 == ${address[0]} ]] && host=a || host=b
shift
exec ip netns exec \$host /bin/sh -c "\$*"
SSH
chmod +x ssh
printf '%s\n' "${address[@]}" >hosts
on a "$sluice" launch --hosts hosts --ssh ./ssh job.textproto >out.0 2>err </dev/null || fail "launch: $(cat err)"
expect "is reached at ${address[0]} port" err
same_numbers
passes "launch --hosts takes the address that the other host reaches"

# --- a name that leads to 127.0.1.1 at home ---
for host in a b; do
  mkdir -p /run/etc/$host
  echo "127.0.0.1 localhost" >/run/etc/$host.hosts
done
echo "127.0.1.1 host-a" >>/run/etc/a.hosts
echo "${address[0]} host-a" >>/run/etc/b.hosts
plain_on=$(declare -f on)
on() {
  local host=$1
  shift
  ip netns exec $host /bin/sh -c 'mount --bind /run/etc/$0.hosts /etc/hosts && exec "$@"' $host "$@"
}
join=host-a
start
end_within 60 0
same_numbers
eval "$plain_on"
join=${address[0]}
passes "a name that leads to 127.0.1.1 on its own host"

# --- a link that goes down ---
start "${endless[@]}"
until_step 3 && {
  ip -n a link set near down
  sleep 2
  at=$(step)
  sleep 1
  [[ $(step) == "$at" ]] || fail "steps without a link"
  ip -n a link set near up
  until_step $((at + 20))
  kill -TERM "$(pgrep -f -- "--process 0 .*:$port ")"
  end_within 30 0
}
passes "a link that is down for a while"
for gone in a b; do
  start "${endless[@]}"
  until_step 3
  ip -n $gone link set near down
  end_within $((heartbeat + 10)) 1
  grep -q 'process 1 .*not heard of' out.0 || fail "process 0 doesn't name the cause: $(tail -n 3 out.0)"
  grep -q 'process 0.*not heard of' out.1 || fail "process 1 doesn't name the cause: $(tail -n 3 out.1)"
  ip -n $gone link set near up
  passes "a link that stays down, at host $gone"
done

# --- 5 % of all packets are lost ---
for host in a b; do
  on $host nft -f - <<'NFT'
table inet faults {
  chain input {
    type filter hook input priority 0
    numgen random mod 100 < 5 drop
  }
}
NFT
done
start
end_within 120 0
same_numbers
for host in a b; do on $host nft delete table inet faults; done
passes "5 % of all packets are lost"

# --- 10 Mbit/s: messages that take longer than the watchdog's limit ---
for host in a b; do tc -n $host qdisc add dev near root tbf rate 10mbit burst 32k latency 200ms; done
large=(--set model.channels=512 --set model.heads=8 --set layout.pp=1 --set layout.dp=2 --set training.steps=2
  --set training.evaluate_every=0 --set 'data.hold_out.files=[]' --set watchdog.seconds=6)
"$sluice" train job.textproto "${large[@]}" >one 2>&1 </dev/null || fail "train: $(cat one)"
start "${large[@]}"
end_within 240 0
same_numbers
awk '/^Step:/ { exit !($3 > 6000) }' out.0 || fail "messages were too quick for this test: $(tail -n 4 out.0)"
for host in a b; do tc -n $host qdisc del dev near root; done
passes "10 Mbit/s is slow and not dead"

# --- 50 ms each way ---
"$relay" 50 a 10.87.2.1/24 b 10.87.2.2/24 >relay 2>&1 &
for ((i = 0; i < 100; ++i)); do grep -q ready relay && break; sleep 0.1; done
"$sluice" train job.textproto >one 2>&1 </dev/null || fail "train: $(cat one)"
join=10.87.2.1
start --interface far
end_within 120 0
same_numbers
passes "50 ms each way"

echo "$passed passed, $failures failed"
finish
