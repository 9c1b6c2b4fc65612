import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { checkFile } from './layer-rules.ts'

const faultsOf = (file: string, source: string) =>
  checkFile(file, source).map(({ line, what }) => `${line}: ${what}`)

describe('checkFile', () => {
  const faults = [
    {
      name: 'an arrow that points up',
      file: 'src/model/task.ts',
      source: "import {\n  a,\n} from '../store/index.ts'\n",
      want: /^3: model may not import store/,
    },
    {
      name: 'an import of types alone',
      file: 'src/agent/agent.ts',
      source: "import type { Manager } from '../manager/index.ts'",
      want: /^1: agent may not import manager/,
    },
    {
      name: 'a re-export',
      file: 'src/dispatcher/index.ts',
      source: "export { x } from '../agent/agent.ts'",
      want: /^1: dispatcher may not import agent/,
    },
    {
      name: 'a late import',
      file: 'src/runtime/docker.ts',
      source: "const m = await import('../cli/main.ts')",
      want: /^1: runtime may not import cli/,
    },
    {
      name: 'any use of the simulator',
      file: 'src/cli/main.ts',
      source: "import { simulate } from '../sim/index.ts'",
      want: /^1: cli may not import sim .*nothing imports sim/,
    },
    {
      name: 'the command line below itself',
      file: 'src/daemon/run.ts',
      source: "import { main } from '../cli/main.ts'",
      want: /^1: daemon may not import cli/,
    },
    {
      name: 'a Node module in a decision',
      file: 'src/scheduler/place.ts',
      source: "import { createHash } from 'node:crypto'",
      want: /^1: scheduler is pure and may not import node:crypto/,
    },
    {
      name: 'a package in a decision',
      file: 'src/allocator/addresses.ts',
      source: "import pino from 'pino'",
      want: /^1: allocator is pure and may not import pino/,
    },
    {
      name: 'a global of Node in a decision',
      file: 'src/orchestrator/decide.ts',
      source: 'const home = process.env.HOME',
      want: /^1: orchestrator is pure and may not use Node.js/,
    },
    {
      name: 'the clock in a loop',
      file: 'src/manager/loop.ts',
      source: '\nconst now = Date.now()',
      want: /^2: reaches for the clock/,
    },
    {
      name: 'a bare timer in the agent',
      file: 'src/agent/agent.ts',
      source: 'setTimeout(work, 10)',
      want: /^1: reaches for a bare timer/,
    },
    {
      name: 'a folder nobody has placed',
      file: 'src/utils/x.ts',
      source: '',
      want: /^1: the folder src\/utils has no layer/,
    },
    {
      name: 'a test used as a library',
      file: 'src/store/open.ts',
      source: "import { build } from './open.test.ts'",
      want: /^1: imports the test/,
    },
  ]
  for (const { name, file, source, want } of faults) {
    test(`finds ${name}`, () => {
      const [first = '', ...more] = faultsOf(file, source)
      assert.match(first, want)
      assert.deepEqual(more, [])
    })
  }

  const sound = [
    ['downward imports', 'src/manager/loop.ts', "import { a } from '../orchestrator/index.ts'"],
    ['imports inside a folder', 'src/api/docker/x.ts', "import { a } from './routes/tasks.ts'"],
    [
      'words in comments',
      'src/model/task.ts',
      "// import { a } from '../cli/main.ts'\n/* Date.now() */",
    ],
    ['a method with a timer name', 'src/agent/a.ts', 'world.setTimeout(1)'],
    ['the file that makes the world real', 'src/store/real-disk.ts', 'Date.now()'],
    ['anything in a test', 'src/model/task.test.ts', "import { a } from '../cli/main.ts'"],
    ['a package that only computes', 'src/allocator/a.ts', "import ipaddr from 'ipaddr.js'"],
    ['a date made from a number', 'src/store/a.ts', 'new Date(nowMs).toISOString()'],
  ] as const
  for (const [name, file, source] of sound) {
    test(`accepts ${name}`, () => assert.deepEqual(faultsOf(file, source), []))
  }
})
