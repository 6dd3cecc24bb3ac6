// `node --import phalanx-cluster/register main.js`
import './register.cjs';
