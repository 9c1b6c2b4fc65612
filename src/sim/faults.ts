import { Chance } from './chance.ts'
import type { SimulatedCluster } from './cluster.ts'
import type { Host } from './host.ts'
import { fairWeather, type NetworkWeather } from './network.ts'
import type { ReplicatedState } from './replicated.ts'
import type { Trace } from './trace.ts'

/** Undoes a fault. */
type Heal = () => void

/** Breaks things, one after the other and several at once, and mends each after a while. */
export class Faults {
  readonly counts = new Map<string, number>()
  isOver = false
  readonly #cluster: SimulatedCluster
  readonly #trace: Trace
  readonly #chance: Chance
  readonly #open = new Set<Heal>()
  /** Machines that something is wrong with already. */
  readonly #broken = new Set<string>()

  constructor(cluster: SimulatedCluster, trace: Trace) {
    this.#cluster = cluster
    this.#trace = trace
    this.#chance = Chance.of(cluster.seed, 'faults')
  }

  get count(): number {
    let sum = 0
    for (const count of this.counts.values()) sum += count
    return sum
  }

  begin(): void {
    const chance = this.#chance
    const next = (): void => {
      if (this.isOver) return
      this.#strike()
      this.#cluster.time.after(chance.between(500, chance.oneIn(3) ? 4_000 : 36_000), next)
    }
    this.#cluster.time.after(chance.between(1_000, 10_000), next)
  }

  /** Mends everything, and breaks nothing more. */
  healAll(): void {
    this.isOver = true
    for (const heal of [...this.#open]) heal()
    const { network, hosts } = this.#cluster
    network.mendAll()
    network.weather = fairWeather
    for (const host of hosts) host.clock.correct()
  }

  #strike(): void {
    const chance = this.#chance
    const strike = chance.weighted<() => void>([
      [6, () => this.#weather()],
      [4, () => this.#cutOneWay()],
      [4, () => this.#partition()],
      [4, () => this.#crashHost()],
      [5, () => this.#restartDaemon()],
      [4, () => this.#pauseDaemon()],
      [3, () => this.#crashManager()],
      [3, () => this.#pauseManager()],
      [3, () => this.#changeLeader()],
      [4, () => this.#jumpClock()],
      [3, () => this.#slowDisk()],
      [3, () => this.#failDisk()],
      [4, () => this.#loseEngine()],
      [6, () => this.#killContainer()],
      [4, () => this.#loseContainer()],
      [2, () => this.#breakKernel()],
      [3, () => this.#openConnections()],
    ])
    strike()
  }

  #begin(kind: string, words: string, forMs: number, heal: Heal): void {
    this.#note(kind, words)
    const once = (): void => {
      if (!this.#open.delete(once)) return
      this.#trace.say(`over: ${words}`)
      heal()
    }
    this.#open.add(once)
    this.#cluster.time.after(forMs, once)
  }

  #note(kind: string, words: string): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
    this.#trace.say(`FAULT ${kind}: ${words}`)
  }

  /** A machine that nothing is wrong with, or undefined. */
  #aHost(isWanted: (host: Host) => boolean = () => true): Host | undefined {
    return this.#chance.pick(
      this.#cluster.hosts.filter(
        (host) => !host.isRemoved && host.isUp && !this.#broken.has(host.name) && isWanted(host),
      ),
    )
  }

  #isManager = (host: Host): boolean => this.#cluster.daemons.get(host.name)?.manager !== undefined

  #break(host: Host, kind: string, words: string, forMs: number, heal: Heal): void {
    this.#broken.add(host.name)
    this.#begin(kind, words, forMs, () => {
      this.#broken.delete(host.name)
      heal()
    })
  }

  #weather(): void {
    const chance = this.#chance
    const weather: NetworkWeather = chance.weighted<NetworkWeather>([
      [2, { ...fairWeather, lostOneIn: chance.between(3, 20) }],
      [1, { ...fairWeather, doubledOneIn: chance.between(2, 6) }],
      [1, { ...fairWeather, lateOneIn: chance.between(2, 6), lateMsMax: 400 }],
      [1, { ...fairWeather, delayMsMin: 50, delayMsMax: chance.between(100, 800) }],
      [
        1,
        {
          delayMsMin: 1,
          delayMsMax: 60,
          lostOneIn: 8,
          doubledOneIn: 8,
          lateOneIn: 8,
          lateMsMax: 900,
        },
      ],
    ])
    const kind =
      weather.lostOneIn > 0
        ? 'message loss'
        : weather.doubledOneIn > 0
          ? 'message duplication'
          : weather.lateOneIn > 0
            ? 'message reorder'
            : 'message delay'
    this.#cluster.network.weather = weather
    this.#begin(kind, JSON.stringify(weather), chance.between(3_000, 40_000), () => {
      if (this.#cluster.network.weather === weather) this.#cluster.network.weather = fairWeather
    })
  }

  #cutOneWay(): void {
    const { network, hosts } = this.#cluster
    const host = this.#aHost()
    const other = host && this.#chance.pick(hosts.filter((one) => one !== host && !one.isRemoved))
    if (!host || !other) return
    const forMs = this.#chance.between(1_000, 40_000)
    network.cut(host.name, other.name)
    this.#begin('one-way partition', `${host.name} no longer reaches ${other.name}`, forMs, () =>
      network.mend(host.name, other.name),
    )
  }

  #partition(): void {
    const { network, hosts } = this.#cluster
    const apart = hosts.filter(({ isRemoved }) => !isRemoved && this.#chance.oneIn(3))
    const rest = hosts.filter((host) => !host.isRemoved && !apart.includes(host))
    if (apart.length === 0 || rest.length === 0) return
    const pairs = apart.flatMap((a) => rest.map((b) => [a.name, b.name] as const))
    for (const [a, b] of pairs) {
      network.cut(a, b)
      network.cut(b, a)
    }
    const names = apart.map(({ name }) => name).join(', ')
    this.#begin(
      'partition',
      `${names} apart from the rest`,
      this.#chance.between(1_000, 60_000),
      () => {
        for (const [a, b] of pairs) {
          network.mend(a, b)
          network.mend(b, a)
        }
      },
    )
  }

  #crashHost(): void {
    const cluster = this.#cluster
    const host = this.#aHost()
    if (!host) return
    cluster.crashHost(host)
    this.#break(
      host,
      'node crash',
      `${host.name} loses power`,
      this.#chance.between(1_000, 60_000),
      () => cluster.powerOn(host),
    )
  }

  #restartDaemon(): void {
    const cluster = this.#cluster
    const host = this.#aHost((one) => !this.#isManager(one))
    if (!host) return
    cluster.killDaemon(host)
    this.#break(
      host,
      'agent restart',
      `the daemon of ${host.name} is killed`,
      this.#chance.between(50, 15_000),
      () => cluster.powerOn(host),
    )
  }

  #pauseDaemon(): void {
    const cluster = this.#cluster
    const host = this.#aHost((one) => !this.#isManager(one))
    const daemon = host && cluster.pauseDaemon(host)
    if (!host || !daemon) return
    this.#break(
      host,
      'agent pause',
      `the daemon of ${host.name} is stopped`,
      this.#chance.between(500, 30_000),
      () => cluster.resumeDaemon(daemon),
    )
  }

  #crashManager(): void {
    const cluster = this.#cluster
    const host = this.#aHost(this.#isManager)
    if (!host) return
    cluster.killDaemon(host)
    this.#break(
      host,
      'manager crash',
      `the manager on ${host.name} is killed`,
      this.#chance.between(50, 12_000),
      () => cluster.powerOn(host),
    )
  }

  #pauseManager(): void {
    const cluster = this.#cluster
    const host = this.#aHost(this.#isManager)
    const daemon = host && cluster.pauseDaemon(host)
    if (!host || !daemon) return
    this.#break(
      host,
      'manager pause',
      `the manager on ${host.name} is stopped`,
      this.#chance.between(500, 30_000),
      () => cluster.resumeDaemon(daemon),
    )
  }

  /** The old leader is stopped, another takes over, and the old one wakes up and believes that nothing happened. */
  #changeLeader(): void {
    const cluster = this.#cluster
    const { replicated } = cluster
    if (replicated) {
      const forMs = this.#chance.between(100, 4_000)
      void replicated.etcd.loseLeaderFor(forMs)
      this.#note('leader change', `the managers' etcd has no leader for ${forMs} ms`)
      return
    }
    const old = cluster.depose()
    if (!old) return
    this.#begin(
      'leader change',
      `another leader than ${old.process.name}`,
      this.#chance.between(20, 20_000),
      () => {
        old.process.resume()
        // It learns of its end some time after it went on.
        cluster.time.after(this.#chance.between(1, 5_000), () => {
          if (cluster.isDeposed(old)) void old.manager.close()
        })
      },
    )
  }

  #jumpClock(): void {
    const host = this.#aHost()
    if (!host) return
    const ms = this.#chance.oneOf(1, -1) * this.#chance.oneOf(500, 5_000, 60_000, 3_600_000)
    host.clock.jump(ms)
    this.#begin(
      'clock jump',
      `the clock of ${host.name} by ${ms} ms`,
      this.#chance.between(1_000, 90_000),
      () => host.clock.correct(),
    )
  }

  #slowDisk(): void {
    const cluster = this.#cluster
    const { replicated } = cluster
    if (replicated) {
      const ms = this.#chance.oneOf(50, 300, 1_200)
      replicated.etcd.delayMsMax = ms
      this.#begin(
        'slow disk',
        `etcd takes up to ${ms} ms`,
        this.#chance.between(1_000, 20_000),
        () => {
          replicated.etcd.delayMsMax = 2
        },
      )
      return
    }
    cluster.syncMsMax = this.#chance.oneOf(50, 500, 3_000)
    this.#begin(
      'slow disk',
      `a sync takes up to ${cluster.syncMsMax} ms`,
      this.#chance.between(1_000, 20_000),
      () => {
        cluster.syncMsMax = 2
      },
    )
  }

  #failDisk(): void {
    const { disk, replicated } = this.#cluster
    if (replicated) {
      this.#failEtcd(replicated)
      return
    }
    disk.fault = this.#chance.oneOf('full', 'failing')
    this.#begin(
      'disk write failure',
      `the managers' disk is ${disk.fault}`,
      this.#chance.between(200, 12_000),
      () => {
        disk.fault = 'none'
      },
    )
  }

  /** One manager's member hangs, its answers get lost, or its way there is cut. */
  #failEtcd(replicated: ReplicatedState): void {
    const host = this.#chance.pick(replicated.hosts.filter((one) => one.isUp && !one.isEtcdPaused))
    const process = host && this.#cluster.daemons.get(host.name)?.process
    const client = process && replicated.clientOf(process)
    if (!host) return
    const forMs = this.#chance.between(200, 12_000)
    const kind = this.#chance.below(3)
    if (kind === 0 || !client) {
      host.isEtcdPaused = true
      this.#cluster.followCuts()
      this.#begin('etcd hangs', `the member on ${host.name} stands still`, forMs, () => {
        host.isEtcdPaused = false
        this.#cluster.followCuts()
      })
    } else if (kind === 1) {
      const count = this.#chance.between(1, 4)
      client.loseReplies(count)
      this.#note('lost answers of etcd', `${count} writes of ${host.name} get no answer`)
    } else {
      client.cut = true
      this.#begin('etcd out of reach', `for the manager on ${host.name}`, forMs, () => {
        client.cut = false
      })
    }
  }

  #loseEngine(): void {
    const host = this.#aHost()
    if (!host) return
    host.engine.setReachable(false)
    host.isEngineAway = true
    this.#break(
      host,
      'engine away',
      `the engine of ${host.name} does not answer`,
      this.#chance.between(500, 20_000),
      () => {
        host.isEngineAway = false
        if (host.isUp) host.engine.setReachable(true)
      },
    )
  }

  #killContainer(): void {
    const host = this.#aHost(({ engine }) => engine.runningTasks().length > 0)
    const taskId = host && this.#chance.pick(host.engine.runningTasks())
    if (!host || !taskId) return
    const code = this.#chance.oneOf(0, 1, 137)
    this.#note(
      'container crash',
      `the container of ${taskId.slice(0, 6)} on ${host.name} ends with ${code}`,
    )
    host.engine.kill(taskId, code)
  }

  #loseContainer(): void {
    const host = this.#aHost(({ engine }) => engine.runningTasks().length > 0)
    const taskId = host && this.#chance.pick(host.engine.runningTasks())
    if (!host || !taskId) return
    this.#note(
      'container removed',
      `somebody removes the container of ${taskId.slice(0, 6)} on ${host.name}`,
    )
    host.engine.lose(taskId)
  }

  #breakKernel(): void {
    const host = this.#aHost()
    if (!host) return
    this.#note('data plane failure', `the next change of rules on ${host.name} fails`)
    host.kernel.failNextApply(new Error('simulated: netlink says no'))
    host.kernel.breakSomething('a rule was gone')
  }

  /** A client that holds its connection while its task is to stop. */
  #openConnections(): void {
    const host = this.#aHost()
    const desired = host?.kernel.desired.tasks ?? []
    const task = this.#chance.pick(desired)
    if (!host || !task) return
    host.kernel.setOpenConnections(task.pid, 2)
    this.#begin(
      'lasting connections',
      `to process ${task.pid} on ${host.name}`,
      this.#chance.between(500, 15_000),
      () => host.kernel.setOpenConnections(task.pid, 0),
    )
  }
}
