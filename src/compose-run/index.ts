export { buildImage, directoryEntries } from './build.ts'
export { readServiceFiles } from './files.ts'
export { type ContainerExit, Follower } from './follower.ts'
export { graphOf, sharedWith } from './graph.ts'
export { type IgnoreRules, ignoreRules, parseIgnoreFile } from './ignore-file.ts'
export { ensureImages, inspectImage, pullImage, pushImage } from './images.ts'
export { label } from './labels.ts'
export {
  down,
  forContainers,
  graphFor,
  listContainers,
  removeContainer,
  runInside,
  stopContainer,
} from './life.ts'
export { isNoLog, LogPrinter, type LogQuery, mergeLogs, readLog, shortName } from './logs.ts'
export { isRunning, type Observed, observe } from './observed.ts'
export { ProgressTree, plainLine } from './progress.ts'
export { ensureNetworks, ensureVolumes } from './resources.ts'
export { ContainerWatch, type RunWorld, type Step, shown } from './run-world.ts'
export { packTar, type ReadEntry, type TarEntry, unpackTar } from './tar.ts'
export {
  createContainer,
  explainStart,
  selectServices,
  startContainer,
  type UpContainer,
  type UpOptions,
  up,
} from './up.ts'
