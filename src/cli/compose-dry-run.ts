import type { Engine } from '../engine/index.ts'

/** The engine as it is, but for what changes something: that is left undone and told as done. */
export function dryRunEngine(engine: Engine): Engine {
  let made = 0
  const nothing = async (): Promise<void> => {}
  const newId = async (): Promise<{ Id: string }> => {
    made++
    return { Id: `dry${String(made).padStart(61, '0')}` }
  }
  const { containers, images, networks, volumes, execs } = engine
  return {
    ...engine,
    containers: {
      ...containers,
      create: newId,
      start: nothing,
      stop: nothing,
      kill: nothing,
      restart: nothing,
      pause: nothing,
      unpause: nothing,
      remove: nothing,
      rename: nothing,
      putArchive: nothing,
    },
    execs: { ...execs },
    images: {
      ...images,
      pull: nothing,
      remove: nothing,
      tag: nothing,
      push: nothing,
      build: async () => '',
    },
    networks: {
      ...networks,
      create: newId,
      remove: nothing,
      connect: nothing,
      disconnect: nothing,
    },
    volumes: {
      ...volumes,
      create: async ({ Name = '', Driver = 'local' }) => ({
        Name,
        Driver,
        Mountpoint: '',
        Scope: 'local',
      }),
      remove: nothing,
    },
  }
}
