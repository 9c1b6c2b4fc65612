import { type Command, Option } from 'commander'
import { collect } from './command.ts'
import type { ServiceFlags } from './service-spec.ts'

/** Flags that create and update share, as docker names them. */
const values: readonly (readonly [string, string])[] = [
  ['--replicas <count>', 'Number of tasks'],
  ['--max-concurrent <count>', 'Tasks of a job that run at once'],
  ['--replicas-max-per-node <count>', 'Most tasks on one node (0: no limit)'],
  ['--entrypoint <command>', "In place of the image's entrypoint"],
  ['--hostname <name>', "The container's host name"],
  ['-u, --user <user>', 'User or uid, with group or gid behind a colon'],
  ['-w, --workdir <dir>', 'Working directory in the container'],
  ['--isolation <mode>', 'Isolation of the container (Windows)'],
  ['--stop-signal <signal>', 'Signal that stops the container'],
  ['--stop-grace-period <duration>', 'Time to end before it is killed (10s)'],
  ['--endpoint-mode <mode>', 'vip or dnsrr'],
  ['--log-driver <driver>', 'Where logs go'],
  ['--oom-score-adj <score>', 'From -1000 to 1000'],
  ['--limit-cpu <cpus>', 'Most CPUs, as 0.5'],
  ['--limit-memory <bytes>', 'Most memory, as 512M'],
  ['--limit-pids <count>', 'Most processes (0: no limit)'],
  ['--reserve-cpu <cpus>', 'CPUs kept free for a task'],
  ['--reserve-memory <bytes>', 'Memory kept free for a task'],
  ['--restart-condition <when>', 'none, on-failure or any'],
  ['--restart-delay <duration>', 'Pause before a restart (5s)'],
  ['--restart-max-attempts <count>', 'Restarts before giving up'],
  ['--restart-window <duration>', 'Time in which attempts are counted'],
  ['--update-parallelism <count>', 'Tasks updated at once (1; 0: all)'],
  ['--update-delay <duration>', 'Pause between updates'],
  ['--update-failure-action <action>', 'pause, continue or rollback'],
  ['--update-monitor <duration>', 'Time a new task is watched for failure (5s)'],
  ['--update-max-failure-ratio <ratio>', 'Failures to bear, from 0 to 1'],
  ['--update-order <order>', 'start-first or stop-first'],
  ['--rollback-parallelism <count>', 'Tasks rolled back at once (1; 0: all)'],
  ['--rollback-delay <duration>', 'Pause between rollbacks'],
  ['--rollback-failure-action <action>', 'pause or continue'],
  ['--rollback-monitor <duration>', 'Time a task is watched for failure (5s)'],
  ['--rollback-max-failure-ratio <ratio>', 'Failures to bear, from 0 to 1'],
  ['--rollback-order <order>', 'start-first or stop-first'],
  ['--health-cmd <command>', 'Command that tells health'],
  ['--health-interval <duration>', 'Time between checks'],
  ['--health-timeout <duration>', 'Longest time of a check'],
  ['--health-start-period <duration>', 'Time to start in which failures do not count'],
  ['--health-start-interval <duration>', 'Time between checks while starting'],
  ['--health-retries <count>', 'Failures until unhealthy'],
]

const switches: readonly (readonly [string, string])[] = [
  ['-t, --tty', 'Give it a terminal'],
  ['--init', 'Run an init that reaps processes'],
  ['--read-only', "Mount the container's root read-only"],
]

/** Lists: create names them so, update with `-add` and `-rm`. */
const lists: readonly (readonly [string, string, string])[] = [
  ['env', 'var', 'Environment variable, NAME=value or NAME'],
  ['label', 'label', "The service's label"],
  ['container-label', 'label', "The containers' label"],
  ['constraint', 'expression', 'Which nodes may run it, as node.role==worker'],
  ['placement-pref', 'preference', 'How to spread it, as spread=node.labels.zone'],
  ['publish', 'port', 'Published port, as 8080:80'],
  ['mount', 'mount', 'Mount, as type=volume,source=data,target=/data'],
  ['network', 'network', 'Network to join'],
  ['secret', 'secret', 'Secret to show it'],
  ['config', 'config', 'Config to show it'],
  ['dns', 'address', 'DNS server'],
  ['dns-option', 'option', 'DNS option'],
  ['dns-search', 'domain', 'DNS search domain'],
  ['group', 'group', 'Supplementary group'],
  ['host', 'host:address', 'Line of /etc/hosts'],
  ['sysctl', 'name=value', 'Kernel setting'],
  ['ulimit', 'limit', 'Limit of processes, as nofile=1024:2048'],
  ['generic-resource', 'resource', 'User-defined resource, as gpu=2'],
]

const shorts: Readonly<Record<string, string>> = { env: '-e', label: '-l', publish: '-p' }

export function addCreateOptions(command: Command): Command {
  command
    .option('--name <name>', "The service's name")
    .option('--mode <mode>', 'replicated, global, replicated-job or global-job')
  for (const [name, argument, text] of lists) {
    const short = shorts[name]
    command.option(
      `${short ? `${short}, ` : ''}--${name} <${argument}>`,
      `${text} (may be repeated)`,
      collect,
    )
  }
  command.option('--env-file <file>', 'File of NAME=value lines (may be repeated)', collect)
  return addShared(command)
}

export function addUpdateOptions(command: Command): Command {
  command
    .option('--image <image>', 'The image to run')
    .option('--args <command>', "The container's command")
    .option('--force', 'Replace the tasks even if nothing changed')
    .option('--rollback', 'Go back to the spec of before')
  for (const [name, argument, text] of lists) {
    command.option(`--${name}-add <${argument}>`, `${text} (may be repeated)`, collect)
    command.option(`--${name}-rm <${argument}>`, 'Remove one (may be repeated)', collect)
  }
  return addShared(command)
}

function addShared(command: Command): Command {
  for (const [flags, text] of values) command.option(flags, text)
  for (const [flags, text] of switches) {
    command.option(flags, text)
    const long = /--(\S+)$/.exec(flags)?.[1]
    command.addOption(new Option(`--no-${long}`).hideHelp())
  }
  return command
    .option('--no-healthcheck', 'Ignore health checks of the image')
    .option('--log-opt <name=value>', 'Option of the log driver (may be repeated)', collect)
    .option('--cap-add <capability>', 'Linux capability to add (may be repeated)', collect)
    .option('--cap-drop <capability>', 'Linux capability to drop (may be repeated)', collect)
    .option('--with-registry-auth', "Send this user's registry login to the nodes")
    .option('--no-resolve-image', 'Do not ask the registry for the digest')
}

/** `--env` of create is `--env-add` of update. */
export function asUpdateFlags(flags: Readonly<Record<string, unknown>>): ServiceFlags {
  const names = new Map(
    lists.map(([name]) => {
      const key = name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
      return [key, `${key}Add`]
    }),
  )
  return Object.fromEntries(
    Object.entries(flags).map(([key, value]) => [names.get(key) ?? key, value]),
  )
}
