/** A seed that once broke something, and what that was. */
export interface Regression {
  readonly seed: number
  /** The promise that was broken, as its checker is called. */
  readonly checker: string
  /** What went wrong, and where it was mended. */
  readonly what: string
}

/**
 * Every seed that found a fault of the code is run again with each test. A seed draws the same life for as long as the
 * simulator draws in the same order; the test beside each fix holds it for good.
 */
export const regressions: readonly Regression[] = [
  {
    seed: 1,
    checker: 'no traffic to a task that stops',
    what: 'a manager that woke up deposed took sessions that had begun before, and kept nodes to itself that the new leader then called down (cluster/cluster-port.ts)',
  },
  {
    seed: 47,
    checker: 'convergence',
    what: 'a task that its node started again while no manager was in reach was never called ready again (agent/task-step.ts)',
  },
  {
    seed: 8,
    checker: 'convergence',
    what: "a node's clock was an hour fast, and the update waited that hour to have watched its tasks (dispatcher/node-time.ts)",
  },
  {
    seed: 27,
    checker: 'convergence',
    what: 'a clock that was set back stood still until the wall clock came by again, and every wait with it (base/steady-clock.ts)',
  },
  {
    seed: 2,
    checker: 'no traffic to a task that stops',
    what: 'a new leader took the silence of nodes that had no session yet for their word that a task was out of traffic (dispatcher/dispatcher.ts)',
  },
  {
    seed: 5,
    checker: 'linearizability',
    what: 'a manager answered a read before it knew what another one had acknowledged (api/docker/server.ts)',
  },
  {
    seed: 204,
    checker: 'convergence',
    what: 'a new leader compared times that one with a fast clock had written with its own, and an update never ended (store/etcd/etcd-store.ts)',
  },
  {
    seed: 30031,
    checker: 'convergence',
    what: 'an engine finished what a killed daemon had asked of it, and the container stayed: its task was gone by then (agent/agent.ts)',
  },
  {
    seed: 120017,
    checker: 'no traffic to a task that stops',
    what: 'a task that turned unhealthy while the report of its readiness was on its way was stopped at once (agent/task-step.ts)',
  },
  {
    seed: 700236,
    checker: 'convergence',
    what: "a leader's own node began its session while the leadership ended; nothing ended it, and the node stayed down (dispatcher/dispatcher.ts)",
  },
  {
    seed: 770014,
    checker: 'followed logs are whole',
    what: 'a manager asked a leader that had just lost its power for logs, and nothing told it that another one leads by now (cluster/cluster-port.ts)',
  },
  {
    seed: 790617,
    checker: 'followed logs are whole',
    what: 'a node was called down while messages to it were on their way, its session was not ended, and a question over it waited for good (cluster/session-server.ts)',
  },
  {
    seed: 1781749595,
    checker: 'no traffic to a task that stops',
    what: 'an agent that was started anew went by its journal, which was older than what it had acknowledged, and sent connections again to a task that was being stopped (agent/agent.ts)',
  },
  {
    seed: 1781749665,
    checker: 'no traffic to a task that stops',
    what: "a new leader's own agent was between two attempts to find a leader, and sought it later than it was waited for (agent/agent.ts)",
  },
  {
    seed: 1781749467,
    checker: 'no traffic to a task that stops',
    what: "a leader's engine did not answer when its agent sought a new session, and the node's network followed nobody (agent/agent.ts)",
  },
  {
    seed: 1781749540,
    checker: 'followed logs are whole',
    what: 'a session that an earlier leadership had begun took the place of the one that counts, and the node could be asked nothing (cluster/cluster-port.ts)',
  },
  {
    seed: 500274,
    checker: 'followed logs are whole',
    what: 'a manager that had been cut off asked the leader that its state named, which had no power, although the next one was elected (cluster/cluster-port.ts)',
  },
  {
    seed: 1731200402,
    checker: 'convergence',
    what: 'a service moved between networks and back while a node was away, and that node lost the service: what several feeds said was applied one after the other (wire/feed.ts)',
  },
  {
    seed: 142,
    checker: 'a seed ends',
    what: 'a loop of a deposed leader with more to do than one turn holds was refused and looked again at once, for good, and let nobody else run (manager/loop.ts)',
  },
  {
    seed: 212,
    checker: 'followed logs are whole',
    what: 'a daemon that was killed within a second of the end of a task, and found no manager, began it again (agent/agent.ts)',
  },
  {
    seed: 59,
    checker: 'what has ended does not run again',
    what: 'the same, as its own promise tells it (agent/agent.ts)',
  },
  {
    seed: 1609144782,
    checker: 'what has ended does not run again',
    what: 'an engine started what a daemon had asked it for before it was killed, and the next daemon, which had told of the end by then, let it run (agent/task-step.ts)',
  },
  {
    seed: 485037532,
    checker: 'what has ended does not run again',
    what: 'a start that was called off when its task was to stop came all the same, and the agent did not look at what the engine said of it (agent/agent.ts)',
  },
  {
    seed: 485037623,
    checker: 'no traffic to a task that stops',
    what: 'an agent that was started anew took itself for alone at once, as the store that its daemon opened set its clock by a minute, and went by its journal (agent/agent.ts)',
  },
]
