// The queue keeps itself fresh; a part under the pointer or with the focus waits until it is left.
import { byId } from "./dom.js";
import { Hints } from "./live.js";
import { replaceParts } from "./parts.js";

const root = byId("queue");
new Hints({ badge: byId("fresh"), refresh: () => replaceParts(root), pause: 1000 }).start();
