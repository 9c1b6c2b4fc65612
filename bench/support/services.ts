import type { EngineApi } from '../../test/support/engine-api.ts'
import { at, listAt, textAt } from '../../test/support/look.ts'

/** How often a state is asked for. Short beside what is measured, and the same for every contender. */
const askEveryMs = 20

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms))

export async function until(
  what: string,
  look: () => Promise<boolean>,
  withinMs = 180_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs
  while (!(await look())) {
    if (performance.now() > untilMs) throw new Error(`not within ${withinMs / 1000} s: ${what}`)
    await pause(askEveryMs)
  }
}

const filters = (value: unknown) => encodeURIComponent(JSON.stringify(value))

/** Tasks of a service that run and are meant to, with their image. */
export async function imagesRunning(api: EngineApi, service: string): Promise<readonly string[]> {
  const wanted = filters({ service: [service], 'desired-state': ['running'] })
  return listAt(await api.ok('GET', `/tasks?filters=${wanted}`))
    .filter((task) => textAt(task, 'Status', 'State') === 'running')
    .map((task) => textAt(task, 'Spec', 'ContainerSpec', 'Image'))
}

export function untilRunning(api: EngineApi, service: string, count: number): Promise<void> {
  return until(`${count} tasks of ${service}`, async () => {
    return (await imagesRunning(api, service)).length === count
  })
}

export function untilUpdated(api: EngineApi, service: string): Promise<void> {
  return until(`the update of ${service}`, async () => {
    const state = textAt(await api.ok('GET', `/services/${service}`), 'UpdateStatus', 'State')
    if (/paused|rollback/.test(state)) throw new Error(`the update of ${service} is ${state}`)
    return state === 'completed'
  })
}

/** A spec as `docker service create` sends it, by API: what is timed is the daemon, not the client. */
export function serviceSpec(name: string, image: string, replicas: number): unknown {
  return {
    Name: name,
    TaskTemplate: { ContainerSpec: { Image: image } },
    Mode: { Replicated: { Replicas: replicas } },
    UpdateConfig: { Parallelism: 5, Delay: 0, Order: 'stop-first' },
    EndpointSpec: { Mode: 'vip' },
  }
}

export async function updateImage(api: EngineApi, service: string, image: string): Promise<void> {
  const found = await api.ok('GET', `/services/${service}?insertDefaults=false`)
  const version = Number(at(found, 'Version', 'Index'))
  const spec: unknown = structuredClone(at(found, 'Spec'))
  const container = at(spec, 'TaskTemplate', 'ContainerSpec')
  if (typeof container !== 'object' || container === null) throw new Error('no container in spec')
  Reflect.set(container, 'Image', image)
  await api.ok('POST', `/services/${service}/update?version=${version}`, spec)
}

/** Removes a service and waits until the engine has none of its containers. */
export async function removeService(
  api: EngineApi,
  engine: EngineApi,
  service: string,
): Promise<void> {
  await api.ok('DELETE', `/services/${service}`)
  const label = filters({ label: [`com.docker.swarm.service.name=${service}`] })
  await until(`the end of ${service}`, async () => {
    return listAt(await engine.ok('GET', `/containers/json?all=1&filters=${label}`)).length === 0
  })
}

/** Creates and starts so many containers by the engine alone, so many at a time. Resolves with their ids. */
export async function startRaw(
  engine: EngineApi,
  image: string,
  count: number,
  atOnce: number,
): Promise<readonly string[]> {
  const ids: string[] = []
  let left = count
  const work = async () => {
    while (left > 0) {
      left -= 1
      const id = textAt(await engine.ok('POST', '/containers/create', { Image: image }), 'Id')
      ids.push(id)
      await engine.ok('POST', `/containers/${id}/start`)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return ids
}

export async function removeRaw(engine: EngineApi, ids: readonly string[]): Promise<void> {
  const left = [...ids]
  const work = async () => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      await engine.ok('DELETE', `/containers/${id}?force=1`)
    }
  }
  await Promise.all(Array.from({ length: 4 }, work))
}
