import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Observed } from './observed.ts'
import { type Action, decideUp, type UpView, type WantedService } from './plan.ts'

const networkIdByName = { shop_default: 'n1' }
let made = 0

function buildContainer(parts: Partial<Observed> = {}): Observed {
  made++
  const { service = 'web', number = 1 } = parts
  return {
    id: String(made).padStart(64, '0'),
    name: `shop-${service}-${number}`,
    service,
    number,
    isOneOff: false,
    state: 'running',
    status: 'Up 1 second',
    hash: 'h1',
    imageId: 'i1',
    image: 'app',
    dependsOn: [],
    networkIdByName,
    item: { Id: String(made), Names: [], Image: 'app', State: 'running', Status: '' },
    ...parts,
  }
}

function buildService(parts: Partial<WantedService> = {}): WantedService {
  return {
    name: 'web',
    scale: 1,
    hash: 'h1',
    imageId: 'i1',
    networkIdByName,
    recreate: 'changed',
    sharedWith: [],
    restartsWith: [],
    ...parts,
  }
}

function buildView(parts: Partial<UpView> = {}): UpView {
  return {
    project: 'shop',
    services: [buildService()],
    containers: [],
    known: ['web', 'db'],
    removeOrphans: false,
    ...parts,
  }
}

const told = (actions: readonly Action[]): readonly string[] =>
  actions.map((action) => {
    const name =
      action.type === 'create' || action.type === 'recreate' || action.type === 'rename'
        ? action.name
        : action.container.name
    return 'because' in action
      ? `${action.type} ${name} ${action.because}`
      : `${action.type} ${name}`
  })

describe('decideUp', () => {
  const cases: readonly { name: string; view: Partial<UpView>; want: readonly string[] }[] = [
    { name: 'makes what is missing', view: {}, want: ['create shop-web-1'] },
    {
      name: 'leaves what is as declared',
      view: { containers: [buildContainer()] },
      want: ['keep shop-web-1'],
    },
    {
      name: 'starts what stands still',
      view: { containers: [buildContainer({ state: 'exited' })] },
      want: ['start shop-web-1'],
    },
    {
      name: 'lets what is frozen go on',
      view: { containers: [buildContainer({ state: 'paused' })] },
      want: ['unpause shop-web-1'],
    },
    {
      name: 'makes anew what changed, and gives one of Compose 1 the name of today',
      view: { containers: [buildContainer({ name: 'shop_web_1', hash: 'h0' })] },
      want: ['recreate shop-web-1 configuration'],
    },
    {
      name: 'sees a new image of the same name',
      view: { containers: [buildContainer({ imageId: 'i0' })] },
      want: ['recreate shop-web-1 image'],
    },
    {
      name: 'sees a network that was made anew',
      view: { containers: [buildContainer({ networkIdByName: { shop_default: 'n0' } })] },
      want: ['recreate shop-web-1 network'],
    },
    {
      name: 'takes a network without a word of its id as the same',
      view: { containers: [buildContainer({ networkIdByName: { shop_default: '' } })] },
      want: ['keep shop-web-1'],
    },
    {
      name: 'touches nothing that changed with --no-recreate',
      view: {
        services: [buildService({ recreate: 'never' })],
        containers: [buildContainer({ hash: 'h0', state: 'exited' })],
      },
      want: ['start shop-web-1'],
    },
    {
      name: 'removes the highest numbers and fills the lowest',
      view: {
        services: [buildService({ scale: 2 })],
        containers: [2, 3, 4].map((number) => buildContainer({ number })),
      },
      want: ['remove shop-web-4 scaledDown', 'keep shop-web-2', 'keep shop-web-3'],
    },
    {
      name: 'removes orphans only when asked, one-off ones too',
      view: {
        removeOrphans: true,
        containers: [
          buildContainer(),
          buildContainer({ service: 'old' }),
          buildContainer({ service: 'old', isOneOff: true, name: 'shop-old-run-1' }),
        ],
      },
      want: ['keep shop-web-1', 'remove shop-old-1 orphan', 'remove shop-old-run-1 orphan'],
    },
    {
      name: 'ends a recreation that was cut short before the old container was gone',
      view: {
        containers: [
          buildContainer({ hash: 'h0' }),
          buildContainer({ name: '0123456789ab_shop-web-1', state: 'created' }),
        ],
      },
      want: ['remove shop-web-1 leftover', 'rename shop-web-1', 'start 0123456789ab_shop-web-1'],
    },
    {
      name: 'makes anew what shares a namespace with a new container, though nothing else changed',
      view: {
        services: [
          buildService({ name: 'db' }),
          buildService({ sharedWith: ['db'], recreate: 'never' }),
        ],
        containers: [buildContainer()],
      },
      want: ['create shop-db-1', 'recreate shop-web-1 dependency'],
    },
    {
      name: 'restarts what asked to be restarted with a new dependency',
      view: {
        services: [
          buildService({ name: 'db', hash: 'h2' }),
          buildService({ restartsWith: ['db'] }),
        ],
        containers: [buildContainer({ service: 'db' }), buildContainer()],
      },
      want: ['recreate shop-db-1 configuration', 'restart shop-web-1'],
    },
  ]
  for (const { name, view, want } of cases) {
    test(name, () => assert.deepEqual(told(decideUp(buildView(view))), want))
  }

  test('refuses several containers of one fixed name', () => {
    const service = buildService({ containerName: 'only', scale: 2 })
    assert.throws(() => decideUp(buildView({ services: [service] })), /container_name only/)
  })

  const anyContainer = fc
    .record({
      service: fc.constantFrom('web', 'db', 'old'),
      number: fc.integer({ min: 1, max: 4 }),
      isOneOff: fc.boolean(),
      state: fc.constantFrom('running', 'exited', 'created', 'paused', 'dead', 'restarting'),
      hash: fc.constantFrom('h0', 'h1'),
      imageId: fc.constantFrom('i0', 'i1'),
      networkIdByName: fc.constantFrom({}, { shop_default: 'n0' }, networkIdByName),
      half: fc.boolean(),
    })
    .map(({ half, ...parts }) =>
      buildContainer({
        ...parts,
        ...(half && { name: `0123456789ab_shop-${parts.service}-${parts.number}` }),
      }),
    )
  const anyView = fc
    .record({
      containers: fc.array(anyContainer, { maxLength: 8 }),
      scales: fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 4 })),
      recreate: fc.constantFrom('changed' as const, 'never' as const),
      shares: fc.boolean(),
      removeOrphans: fc.boolean(),
    })
    .map(({ containers, scales, recreate, shares, removeOrphans }) =>
      buildView({
        containers,
        removeOrphans,
        services: [
          buildService({ name: 'db', scale: scales[0], recreate }),
          buildService({ scale: scales[1], recreate, sharedWith: shares ? ['db'] : [] }),
        ],
      }),
    )

  /** What the executor makes of it. */
  function applyAll(view: UpView, actions: readonly Action[]): UpView {
    let containers = [...view.containers]
    const change = (id: string, parts: Partial<Observed>): void => {
      containers = containers.map((one) => (one.id === id ? { ...one, ...parts } : one))
    }
    for (const action of actions) {
      if (action.type === 'remove') {
        containers = containers.filter(({ id }) => id !== action.container.id)
      } else if (action.type === 'rename') change(action.container.id, { name: action.name })
      else if (action.type === 'create' || action.type === 'recreate') {
        const { service, number, name } = action
        if (action.type === 'recreate') {
          containers = containers.filter(({ id }) => id !== action.old.id)
        }
        containers.push(buildContainer({ service, number, name }))
      } else if (action.type !== 'keep') change(action.container.id, { state: 'running' })
    }
    return { ...view, containers }
  }

  test('reaches what is declared, and then rests', () => {
    fc.assert(
      fc.property(anyView, (before) => {
        const after = applyAll(before, decideUp(before))
        for (const { name, scale } of before.services) {
          const own = after.containers.filter((one) => one.service === name && !one.isOneOff)
          assert.equal(own.length, scale)
          assert.equal(new Set(own.map(({ number }) => number)).size, scale)
          assert.ok(own.every(({ state }) => state === 'running' || state === 'restarting'))
        }
        assert.ok(decideUp(after).every(({ type }) => type === 'keep'))
      }),
    )
  })

  test('no action touches a container of another service or a one-off one, but for orphans', () => {
    fc.assert(
      fc.property(anyView, (view) => {
        for (const action of decideUp(view)) {
          if (action.type === 'create') continue
          const container = action.type === 'recreate' ? action.old : action.container
          const isOrphan = action.type === 'remove' && action.because === 'orphan'
          assert.equal(isOrphan, container.service === 'old')
          assert.ok(isOrphan || !container.isOneOff)
        }
      }),
    )
  })
})
